"""The power of a disk fails before every call that changes something on it:
of an agent at a publish and at a removal, of the coordinator at the commits of
both.

A client that goes on afterwards gets its image stored; what was acknowledged
is there and whole, what was deleted is gone, no file is left over.

Every call in turn where PREDELLA_POINTS_STRIDE is 1; the gate takes each
8th from a start that PREDELLA_POINTS_SEED draws.
"""
import os
import random
import threading
import time
import unittest
import uuid

from cluster import Cluster, ClusterTest, random_bytes, wait_until
from power_disks import CrashPoint, Disk, need_disks

STRIDE = int(os.environ.get('PREDELLA_POINTS_STRIDE', '8'))
SEED = int(os.environ.get('PREDELLA_POINTS_SEED') or
           random.SystemRandom().randrange(1 << 32))
NOT_FOUND = 3
# A publish, a removal and their commits have at least so many calls; fewer
# hits than this / STRIDE and the test did not do its work.
LEAST_CALLS = 24


class CrashPoints(ClusterTest):
    kind = 'ext4'

    def setUp(self):
        need_disks(self, self.kind)
        self.disks = {n: Disk(self.kind) for n in ('store-1', 'coordinator')}
        for disk in self.disks.values():
            self.addCleanup(disk.close)
        self.cluster = Cluster(
            (100,), [os.path.join(self.disks['store-1'].path, 'mount')],
            agent_args=('--reserve', '16MiB'))
        argv = self.cluster.coordinator.argv
        self.cluster.state = os.path.join(self.disks['coordinator'].path,
                                          'state')
        os.mkdir(self.cluster.state)
        argv[argv.index('--state-dir') + 1] = self.cluster.state
        self.daemons = {'coordinator': self.cluster.coordinator,
                        **self.cluster.agents}
        self.points = {}
        for name, disk in self.disks.items():
            self.points[name] = CrashPoint(self, disk)
            self.daemons[name].env = self.points[name].env
        self.addCleanup(self._stop)
        self.cluster.start()
        os.sync()
        self.rng = random.Random(SEED)
        self.hits = {}

    def put(self, image):
        self.result = self.cluster.cli('image', 'put', '-', '--id', image,
                                       data=self.data, check=False)

    def remove(self, image):
        self.result = self.cluster.cli('image', 'rm', image, check=False)
        self.until_removed(image)

    def until_removed(self, image):
        """The file goes after the answer."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if image not in self.cluster.files('store-1'):
                    return
            except OSError:
                pass  # not mounted at this moment
            time.sleep(0.02)

    def point(self, who, action, n):
        """Whether the action had an n-th call."""
        image = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        self.data = random_bytes(self.rng.randrange(1, 150_000), n)
        if action == self.remove:
            self.put(image)
            self.assertEqual(self.result.code, 0, self.result.err)
        daemon = self.daemons[who]
        self.points[who].arm(n)
        thread = threading.Thread(target=action, args=(image,))
        thread.start()
        while thread.is_alive() and daemon.running():
            time.sleep(0.005)
        # What goes on after the answer has points as well.
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline and daemon.running():
            time.sleep(0.005)
        hit = self.points[who].disarm(daemon)
        if hit:
            daemon.kill()
            self.disks[who].remount()
            daemon.start()
        thread.join()
        self.check(f'{self.kind}, {who} at call {n} of {action.__name__}, '
                   f'seed {SEED}', action, image)
        return hit

    def check(self, what, action, image):
        cluster = self.cluster
        cluster.wait_ready()
        got = cluster.cli('image', 'get', image, check=False)
        self.assertIn(got.code, (0, NOT_FOUND), f'{what}: {got.err}')
        if action == self.put:
            self.assertEqual(self.result.code, 0, f'{what}: {self.result.err}')
            self.assertEqual(got.code, 0, f'{what}: {got.err}')
            self.assert_same(got.out, self.data, what)
            cluster.cli('image', 'rm', image)
        elif got.code == 0:
            self.assertNotEqual(self.result.code, 0, f'{what}: it is back')
            cluster.cli('image', 'rm', image)
        wait_until(f'{what}: nothing is left over', lambda: not
                   cluster.files('store-1') and not cluster.inflight('store-1'))
        self.assertNotIn(' error recovering ', cluster.coordinator.log(),
                         f'{what}: the mount knows what the index has lost')

    def test_every_call(self):
        for who in self.daemons:
            for action in (self.put, self.remove):
                hits = 0
                n = 1 + self.rng.randrange(STRIDE)
                while self.point(who, action, n):
                    hits += 1
                    n += STRIDE
                self.hits[f'{who} {action.__name__}'] = hits
        print(f'PREDELLA_POINTS_SEED={SEED} PREDELLA_POINTS_STRIDE={STRIDE} '
              f'{self.kind}: cuts {self.hits}', flush=True)
        print(f'injected faults: {sum(self.hits.values())}', flush=True)
        self.assertGreaterEqual(sum(self.hits.values()), LEAST_CALLS // STRIDE)


class Ext4Test(CrashPoints):
    pass


class XfsTest(CrashPoints):
    kind = 'xfs'


del CrashPoints  # not a test itself


if __name__ == '__main__':
    unittest.main(verbosity=2)
