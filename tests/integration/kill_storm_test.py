"""Coordinator, agents and clients are killed at random moments under load.

What was acknowledged must hold: stored images are there and whole, deleted
ones stay gone. What was not acknowledged may be either, never half.

PREDELLA_STORM_SECONDS is how long (30), PREDELLA_STORM_SEED which one.
"""
import os
import random
import subprocess
import threading
import time
import unittest
import uuid

from cluster import MIB, ClusterTest, digest, random_bytes, wait_until

SECONDS = int(os.environ.get('PREDELLA_STORM_SECONDS', '30'))
SEED = int(os.environ.get('PREDELLA_STORM_SEED') or
           random.SystemRandom().randrange(1 << 32))
WORKERS = 4
LARGE = 20 * MIB
# Kills of daemons in ten seconds that a run must reach.
KILLS_PER_TEN_SECONDS = 4
NOT_FOUND, EXISTS = 3, 5


class Model:
    """What may be true of each image: digests of its content, or None for
    absent. Each image belongs to one worker."""

    def __init__(self):
        self.allowed = {}
        self.deleting = set()  # a delete was not acknowledged

    def put(self, image, content, acknowledged):
        before = set() if acknowledged else self.allowed.get(image, {None})
        self.allowed[image] = before | {content}

    def removed(self, image, acknowledged):
        if acknowledged:
            self.allowed[image] = {None}
            self.deleting.discard(image)
        else:
            self.allowed[image] = self.allowed[image] | {None}
            self.deleting.add(image)


class Worker(threading.Thread):
    """Puts, reads and deletes images of its own."""
    large = LARGE  # bytes of a large image
    most_images = 25  # with more than these, one is removed

    def __init__(self, test, number):
        super().__init__()
        self.cluster = test.cluster
        self.until = test.until
        self.rng = random.Random(SEED * 1000 + number)
        self.model = Model()
        self.counts = dict.fromkeys(
            ('put', 'put not acknowledged', 'client killed', 'got',
             'not readable now', 'removed', 'remove not acknowledged'), 0)
        self.errors = []

    def run(self):
        try:
            while time.monotonic() < self.until and not self.errors:
                self.step()
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(f'{type(error).__name__}: {error}')

    def step(self):
        known = sorted(self.model.allowed)
        alive = [i for i in known if self.model.allowed[i] != {None}]
        act = self.rng.random()
        if len(alive) > self.most_images:
            self.remove(self.rng.choice(alive))
        elif not known or act < 0.5:
            self.put(known)
        elif act < 0.8:
            self.get(self.rng.choice(known))
        else:
            self.remove(self.rng.choice(known))

    def put(self, known):
        image = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        gone = [i for i in known if self.model.allowed[i] == {None}]
        if gone and self.rng.random() < 0.3:
            image = self.rng.choice(gone)  # the same id again
        large = self.rng.random() < 0.15
        size = self.large if large else self.rng.randrange(200_000)
        data = random_bytes(size, self.rng.getrandbits(32))
        flags = ['--size', str(size)] if self.rng.random() < 0.5 else []
        code, err = self.feed(image, data, flags)
        if code == EXISTS:
            self.errors.append(f'{image} exists, the model says '
                               f'{self.model.allowed[image]}: {err}')
        self.model.put(image, digest(data), code == 0)
        self.counts['put' if code == 0 else 'put not acknowledged'] += 1

    def feed(self, image, data, flags):
        """`image put`, sometimes killed; returns its exit code and words."""
        process = self.cluster.spawn_cli('image', 'put', '-', '--id', image,
                                         *flags)
        killer = None
        if self.rng.random() < 0.1:
            killer = threading.Timer(self.rng.uniform(0.02, 0.3),
                                     process.kill)
            killer.start()
        try:
            _, err = process.communicate(data, timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        if killer is not None:
            killer.cancel()
            killer.join()
        if process.returncode < 0:
            self.counts['client killed'] += 1
        return process.returncode, err.decode(errors='replace')

    def get(self, image):
        result = self.cluster.cli('image', 'get', image, check=False,
                                  timeout=120)
        if result.code in (0, NOT_FOUND):
            self.check(image, result)
        self.counts['got' if result.code in (0, NOT_FOUND)
                    else 'not readable now'] += 1

    def check(self, image, result):
        seen = None if result.code == NOT_FOUND else digest(result.out)
        allowed = self.model.allowed[image]
        if seen not in allowed:
            self.errors.append(
                f'image {image}: saw {seen}, allowed {allowed}; '
                f'{len(result.out)} bytes, {result.err}')

    def remove(self, image):
        if self.model.allowed[image] == {None}:
            return
        certain = None not in self.model.allowed[image]
        result = self.cluster.cli('image', 'rm', image, check=False,
                                  timeout=120)
        if result.code == NOT_FOUND:
            if certain:
                self.errors.append(f'rm {image}: not found, though it was '
                                   f'acknowledged: {result.err}')
            # An upload of it that was not acknowledged may still end well.
            return
        self.model.removed(image, result.code == 0)
        self.counts['removed' if result.code == 0
                    else 'remove not acknowledged'] += 1


class KillStormTest(ClusterTest):
    priorities = (100, 100, 200)

    def test_storm(self):
        print(f'PREDELLA_STORM_SEED={SEED} PREDELLA_STORM_SECONDS={SECONDS}')
        self.until = time.monotonic() + SECONDS
        workers = [Worker(self, i) for i in range(WORKERS)]
        for worker in workers:
            worker.start()
        try:
            kills = self.kill_at_random()
        finally:
            for worker in workers:
                worker.join()
        counts = {key: sum(w.counts[key] for w in workers)
                  for key in workers[0].counts}
        print(f'kills {kills}; {counts}')
        print(f'injected faults: {sum(kills.values())}')
        for worker in workers:
            self.assertEqual(worker.errors, [], f'seed {SEED}')
        self.cluster.wait_ready(timeout=60)
        self.check_all(workers)
        wanted = SECONDS * KILLS_PER_TEN_SECONDS // 10
        self.assertGreaterEqual(sum(kills.values()), wanted)
        self.assertTrue(all(kills.values()), kills)
        for key in ('put', 'got', 'removed'):
            self.assertGreater(counts[key], 0, counts)

    def kill_at_random(self):
        rng = random.Random(SEED)
        daemons = [self.cluster.coordinator, *self.cluster.agents.values()]
        # All of them first, then whom it hits.
        order = rng.sample(daemons, len(daemons))
        kills = {d.name: 0 for d in daemons}
        while time.monotonic() < self.until:
            victim = order.pop() if order else rng.choice(daemons)
            time.sleep(rng.uniform(0.1, 1.5))
            victim.kill()
            kills[victim.name] += 1
            time.sleep(rng.uniform(0, 0.5))
            victim.start()
        return kills

    def check_all(self, workers):
        readable = set()
        for worker in workers:
            for image in worker.model.allowed:
                result = self.cluster.cli('image', 'get', image, check=False,
                                          timeout=120)
                self.assertIn(result.code, (0, NOT_FOUND),
                              f'{image}: {result.err}')
                worker.check(image, result)
                if result.code == 0:
                    readable.add(image)
            self.assertEqual(worker.errors, [], f'seed {SEED}')

        def on_disk():
            return {f for name in self.cluster.paths
                    for f in self.cluster.files(name)}
        # Late deletes end, and nothing lies there that nobody knows of.
        try:
            wait_until('the files are those of the index',
                       lambda: on_disk() == readable, 30)
        except AssertionError:
            self.fail(f'seed {SEED}: only on disk {on_disk() - readable}, '
                      f'only in the index {readable - on_disk()}')
        print(f'{len(readable)} images whole at the end')


if __name__ == '__main__':
    unittest.main(verbosity=2)
