"""Files of the index are flipped, cut, deleted or replaced by an older copy
under a stopped coordinator, which then starts with its agents.

Nothing may be lost without a word: every acknowledged image is served or its
absence is not claimed, or the coordinator refuses to start with a sentence;
every acknowledged delete stays deleted; and no file of an image that was not
deleted is ever removed.

PREDELLA_MUTATION_SEED says which run, PREDELLA_MUTATIONS how many (16, but
500 in scripts/soak), PREDELLA_MUTATION_SECONDS makes it go on for as long.
"""
import collections
import concurrent.futures
import os
import random
import shutil
import time
import unittest

from cluster import ClusterTest, digest, random_bytes, wait_until

SEED = int(os.environ.get('PREDELLA_MUTATION_SEED') or
           random.SystemRandom().randrange(1 << 32))
MUTATIONS = int(os.environ.get('PREDELLA_MUTATIONS', '16'))
SECONDS = int(os.environ.get('PREDELLA_MUTATION_SECONDS', '0'))
NOT_FOUND = 3


class Mutator:
    """One mutation of one file of an index."""

    def __init__(self, rng, older):
        self.rng = rng
        self.older = older  # a directory with the same files, earlier
        self.kinds = ('flip', 'cut', 'delete', 'old copy')
        self.next = list(self.kinds)  # each once, then as drawn

    def mutate(self, index):
        """Says what it did."""
        files = sorted(n for n in os.listdir(index)
                       if n != 'LOCK' and not n.startswith('LOG'))
        kind = self.next.pop() if self.next else self.rng.choice(self.kinds)
        if kind == 'old copy':
            files = [n for n in files
                     if os.path.exists(os.path.join(self.older, n))]
        else:
            files = [n for n in files
                     if os.path.getsize(os.path.join(index, n)) > 0]
        name = self.rng.choice(files)
        path = os.path.join(index, name)
        size = os.path.getsize(path)
        at = self.rng.randrange(size) if size else 0
        if kind == 'flip':
            with open(path, 'r+b') as f:
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ (1 << self.rng.randrange(8))]))
        elif kind == 'cut':
            os.truncate(path, at)
        elif kind == 'delete':
            os.unlink(path)
        else:
            shutil.copyfile(os.path.join(self.older, name), path)
        return kind, f'{kind} {name} at {at} of {size}'


class IndexMutationTest(ClusterTest):
    priorities = (100, 100)

    def setUp(self):
        super().setUp()
        self.rng = random.Random(SEED)
        self.images = {}
        self.gone = set()
        self.saved = os.path.join(self.cluster.top, 'saved')
        self.older = os.path.join(self.cluster.top, 'older')

    def store(self, count):
        for _ in range(count):
            data = random_bytes(self.rng.randrange(1, 40_000),
                                self.rng.getrandbits(32))
            self.images[self.cluster.put(data)] = digest(data)

    def remove(self, count):
        for image in self.rng.sample(sorted(self.images), count):
            self.cluster.cli('image', 'rm', image)
            del self.images[image]
            self.gone.add(image)

    def stop_all(self):
        for agent in self.cluster.agents.values():
            agent.kill()
        self.cluster.coordinator.kill()

    def copy_index(self, to):
        shutil.copytree(os.path.join(self.cluster.state, 'index'), to)

    def files(self):
        return {f for name in self.cluster.paths
                for f in self.cluster.files(name)}

    def copy_all(self, source, to):
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(source, to)

    def prepare(self):
        """A past with several starts, so with tables, logs and a manifest."""
        cluster = self.cluster
        self.store(4)
        cluster.coordinator.kill()
        cluster.coordinator.start()
        cluster.wait_ready()
        self.store(3)
        self.remove(2)
        cluster.coordinator.kill()
        self.copy_index(self.older)
        cluster.coordinator.start()
        cluster.wait_ready()
        self.store(4)
        self.remove(2)
        wait_until('what was deleted is removed',
                   lambda: self.files() == set(self.images))
        # The fence is on the disk within 1 s of the last commit.
        time.sleep(1.2)
        self.stop_all()
        for name in ('state', *cluster.paths):
            self.copy_all(os.path.join(cluster.top, name),
                          os.path.join(self.saved, name))

    def put_back(self):
        for name in ('state', *self.cluster.paths):
            self.copy_all(os.path.join(self.saved, name),
                          os.path.join(self.cluster.top, name))

    def one(self, mutator):
        """What became of it: refused, recovered, complete or waiting."""
        cluster = self.cluster
        self.put_back()
        kind, what = mutator.mutate(os.path.join(cluster.state, 'index'))
        log = cluster.coordinator.log_path
        if os.path.exists(log):
            os.unlink(log)
        cluster.coordinator.start()
        for agent in cluster.agents.values():
            agent.start()
        outcome = self.settle(what)
        if outcome != 'refused':
            self.check_images(what, outcome)
        self.stop_all()
        self.assertLessEqual(set(self.images), self.files(),
                             f'{what}: a file was removed')
        return kind, outcome

    def settle(self, what):
        """Until the mounts are trusted, or it refused."""
        cluster = self.cluster
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if not cluster.coordinator.running():
                said = cluster.coordinator.log()
                self.assertRegex(said, r'INDEX_UNAVAILABLE|index',
                                 f'{what}: it ended without a sentence')
                code = cluster.coordinator.process.returncode
                self.assertGreaterEqual(code, 0,
                                        f'{what}: it crashed\n{said}')
                return 'refused'
            result = cluster.cli('mount', 'ls', '-o', 'json', check=False)
            mounts = result.json.get('mounts', []) if result.out else []
            if (len(mounts) == len(cluster.paths) and
                    all(m.get('trusted') for m in mounts)):
                recovered = ' recovering ' in cluster.coordinator.log()
                return 'recovered' if recovered else 'complete'
            time.sleep(0.1)
        return 'waiting'

    def get_all(self, images, *verb):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return dict(zip(images, pool.map(
                lambda i: self.cluster.cli('image', *verb, i, check=False),
                images)))

    def check_images(self, what, outcome):
        for image, got in self.get_all(list(self.images), 'get').items():
            content = self.images[image]
            self.assertNotEqual(got.code, NOT_FOUND,
                                f'{what}, {outcome}: {image} is said to be '
                                f'missing: {got.err}')
            if got.code == 0:
                self.assertEqual(digest(got.out), content, f'{what}: {image}')
            elif outcome != 'waiting':
                self.fail(f'{what}, {outcome}: {image}: {got.err}')
        for image, got in self.get_all(list(self.gone), 'stat').items():
            self.assertNotEqual(got.code, 0, f'{what}: {image} was deleted')

    def test_nothing_is_lost_without_a_word(self):
        print(f'PREDELLA_MUTATION_SEED={SEED}')
        self.prepare()
        mutator = Mutator(self.rng, self.older)
        outcomes = collections.Counter()
        kinds = collections.Counter()
        began = time.monotonic()
        done = 0
        try:
            while done < MUTATIONS or time.monotonic() - began < SECONDS:
                with self.subTest(mutation=done):
                    kind, outcome = self.one(mutator)
                    kinds[kind] += 1
                    outcomes[outcome] += 1
                done += 1
                self.stop_all()
        finally:
            print(f'PREDELLA_MUTATION_SEED={SEED}: {done} mutations '
                  f'{dict(kinds)}: {dict(outcomes)}\ninjected faults: {done}',
                  flush=True)
        self.assertGreaterEqual(done, MUTATIONS)
        if done >= 16:
            self.assertEqual(set(kinds), set(mutator.kinds))
            self.assertGreater(outcomes['refused'], 0)


if __name__ == '__main__':
    unittest.main(verbosity=2)
