"""The only mount is slow: it is used all the same, since nothing else is left.

Needs root and FUSE. PREDELLA_FAULT_FULL=1 makes every call of the file system
take 0.7 s, of which one of the agent's is up to fourteen; that takes three
minutes.
"""
import os
import time
import unittest

from cluster import MIB, Cluster, random_bytes, wait_until
from fault_mount import FaultMount, need_faultfs

FULL = os.environ.get('PREDELLA_FAULT_FULL') == '1'
# A rename takes longer than the limit of a call on a mount that is quick.
RULES = ((('*', 700),) if FULL else (('create', 3000), ('rename', 10500)))


class SlowDiskTest(unittest.TestCase):
    def setUp(self):
        need_faultfs(self)
        self.disk = FaultMount(self)
        self.cluster = Cluster(())
        self.addCleanup(self.stop)
        self.cluster.add_mount('store-1', self.disk.path, 100,
                               ('--reserve', '1MiB'))
        self.cluster.start()

    def stop(self):
        if not self._outcome.success:
            self.cluster.print_logs()
        self.disk.remove()
        self.cluster.stop()

    def health(self):
        mounts = self.cluster.cli('mount', 'ls', '-o', 'json').json['mounts']
        return mounts[0]['health']

    def test_the_only_mount_takes_an_upload_slowly(self):
        rules = [self.disk.rule(calls, f'delay:{ms}') for calls, ms in RULES]
        data = random_bytes(3 * MIB, 1)
        since = time.monotonic()
        put = self.cluster.cli('image', 'put', '-', data=data, timeout=400)
        took = time.monotonic() - since
        image = put.text.split()[-1]
        since = time.monotonic()
        self.assertEqual(self.cluster.get(image), data)
        print(f'stored in {took:.1f} s, read in '
              f'{time.monotonic() - since:.1f} s, {self.health()}')
        self.assertIn(self.health(), ('HEALTH_ONLINE', 'HEALTH_SLOW'))
        for rule in rules:
            self.assertGreater(self.disk.counts(rule)['injected'], 2)
        self.assertGreater(took, 30)
        self.disk.heal()
        wait_until('it is ONLINE', lambda: self.health() == 'HEALTH_ONLINE')


if __name__ == '__main__':
    unittest.main(verbosity=2)
