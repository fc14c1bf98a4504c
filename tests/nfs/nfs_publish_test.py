"""Images are stored and read while agents are killed and the NFS server is
stopped and started again: what was acknowledged is there, the same bytes, also
when the client mounted anew.

PREDELLA_NFS_SECONDS is how long (20).
"""
import os
import random
import time
import unittest

import kill_storm_test
from cluster import MIB, Daemon, digest, random_bytes, wait_until
from kill_storm_test import NOT_FOUND
from nfs_case import KIND, SEED, NfsTest
from nfs_server import GRACE, Host, Mount

SECONDS = int(os.environ.get('PREDELLA_NFS_SECONDS', '20'))
WORKERS = 3


class Worker(kill_storm_test.Worker):
    large = 3 * MIB
    most_images = 6


class PublishTest(NfsTest):
    def test_storm(self):
        kill_storm_test.SEED = SEED
        mounts = [self.mount(mib=128) for _ in range(2)]
        self.start(*mounts)
        self.until = time.monotonic() + SECONDS
        workers = [Worker(self, i) for i in range(WORKERS)]
        for worker in workers:
            worker.start()
        try:
            kills, restarts = self.disturb()
        finally:
            for worker in workers:
                worker.join()
        counts = {key: sum(w.counts[key] for w in workers)
                  for key in workers[0].counts}
        print(f'{kills} agents killed, server restarted {restarts} times; '
              f'{counts}')
        for worker in workers:
            self.assertEqual(worker.errors, [], f'seed {SEED}')
        self.cluster.wait_ready(timeout=90)
        self.remount(mounts)
        # What is there, whole; and on disk nothing else, so no .nfs… either.
        kill_storm_test.KillStormTest.check_all(self, workers)
        for mount in mounts:
            self.assertEqual(
                [f for f in mount.export.files() if '.nfs' in f], [])
        self.assertGreater(counts['put'], 0, counts)
        self.assertGreater(restarts, 0)
        self.assertGreater(kills, 0)
        self.injected = kills + restarts
        self.promised('kills and restarts', SECONDS // 10)

    def disturb(self):
        rng = random.Random(SEED)
        kills = restarts = 0
        while time.monotonic() < self.until:
            time.sleep(rng.uniform(1, 3))
            agent = rng.choice(list(self.cluster.agents.values()))
            # Alone, and while the server is away.
            both = kills and rng.random() < 0.5
            if (kills + restarts) % 2 or both:
                self.server.stop()
            kill = not (kills + restarts) % 2 or both
            if kill:
                # Not before the server is back does it end: the kernel still
                # writes what the agent wrote.
                agent.process.kill()
                kills += 1
            time.sleep(rng.uniform(0, 1))
            if not self.server.threads:
                self.server.start()
                restarts += 1
            if kill:
                agent.kill()
                agent.start()
        return kills, restarts


class SillyRenameTest(NfsTest):
    """A file that is removed while it is open is only renamed by the client,
    to .nfs and a number."""

    def silly(self, mount):
        return [f for f in mount.export.files() if '.nfs' in f]

    def test_removed_while_it_is_read(self):
        mount = self.mount()
        self.start(mount)
        # More than is under way between agent and reader on a slow machine: then
        # the agent has closed the file before it is removed.
        image, _ = self.put_on('store-1', 32 * MIB)
        want = self.stored.pop(image)
        reader = self.cluster.spawn_cli('image', 'get', image)
        # Not through the buffer, which communicate() does not see.
        got = os.read(reader.stdout.fileno(), 1)
        self.cluster.cli('image', 'rm', image)
        wait_until('it is renamed', lambda: self.silly(mount), 30)
        self.injected += 1
        other, _ = self.put_on('store-1')
        self.assertEqual(self.cluster.cli('image', 'get', image, check=False
                                          ).code, NOT_FOUND)
        listed = self.cluster.cli('orphan', 'ls').text
        self.assertNotIn('.nfs', listed)
        got += reader.communicate(timeout=60)[0]
        # Whole, or broken off: never other bytes.
        if reader.returncode == 0:
            self.assertEqual(digest(got), want)
        wait_until('nothing is left of it', lambda: not self.silly(mount), 30)
        # One that a client left which lost its power: nobody's, and no harm.
        left = os.path.join(mount.export.path, '.nfs0000000000badcafe')
        with open(left, 'wb') as f:
            f.write(b'left')
        self.injected += 1
        self.remount([mount])
        self.put_on('store-1')
        self.assertNotIn('.nfs', self.cluster.cli('orphan', 'ls').text)
        self.assertTrue(os.path.exists(left))
        self.assertEqual(digest(self.cluster.get(other)), self.stored[other])
        self.check_stored()
        self.promised('files renamed by the client', 2)


class RestartTest(NfsTest):
    def test_under_an_upload(self):
        mount = self.mount()
        self.start(mount)
        for away in (0.0, 3.0):
            data = random_bytes(8 * MIB, self.rng.getrandbits(32))
            upload = self.cluster.spawn_cli('image', 'put', '-')
            upload.stdin.write(data[:3 * MIB])
            upload.stdin.flush()
            wait_until('it is under way', lambda: [
                f for f in mount.export.files() if 'inflight' in f])
            self.server.restart(away)
            self.injected += 1
            start = time.monotonic()
            out, err = upload.communicate(data[3 * MIB:], timeout=120)
            self.assertEqual(upload.returncode, 0, err.decode())
            print(f'server away for {away} s: stored '
                  f'{time.monotonic() - start:.1f} s later')
            image = out.decode().split()[-1]
            self.assertEqual(self.cluster.where(image), ['store-1'])
            self.stored[image] = digest(data)
        self.wait_heal()
        self.check_stored()
        self.remount([mount])
        self.check_stored()
        self.promised('restarts under an upload', 2)

    def test_the_lock_survives(self):
        # Another host asks for it as soon as the server is back.
        other = Host('host3')
        self.addCleanup(other.end)
        self.server.connect(other, '10.9.3')
        mount = self.mount()
        there = Mount(mount.export, '/mnt/there', KIND, other, '10.9.3')
        self.mounts.append(there)
        self.start(mount)
        self.put()
        first = self.cluster.agents['store-1']
        argv = list(first.argv)
        argv[argv.index('--path') + 1] = there.path
        argv[argv.index('--listen') + 1] = f'unix:{self.cluster.sockets}/two'
        second = Daemon('second', other.command(*argv), self.cluster.top)
        self.addCleanup(second.kill)
        self.server.restart()
        self.injected += 1
        start = time.monotonic()
        second.start()
        self.assertNotEqual(second.process.wait(60), 0)
        print(f'refused {time.monotonic() - start:.1f} s after the restart '
              f'(claims are taken for {GRACE} s)')
        self.assertRegex(second.log(),
                         rf'in use by .*guest.*{first.process.pid}')
        self.put()
        self.wait_heal()
        self.check_stored()
        self.promised('restarts with a lock', 1)


if __name__ == '__main__':
    unittest.main(verbosity=2)
