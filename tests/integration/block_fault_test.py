"""Faults of the disk under a real file system: an image of ext4 or XFS lies on
the fault file system, and a loop device is made of it (reliability.md 2.1).

Slow and wrong blocks, EIO of reads and writes, and a disk that does not answer,
one after the other on the mount that is preferred, beside one that is well.
What was acknowledged is read back after each; other bytes than those stored
never are. Needs root, FUSE and loop devices.
"""
import os
import random
import subprocess
import tempfile
import threading
import time
import unittest

from cluster import Cluster, ClusterTest, random_bytes, wait_until
from fault_mount import FaultMount, need_faultfs
from power_disks import need_disks

SEED = int(os.environ.get('PREDELLA_BLOCK_SEED') or
           random.SystemRandom().randrange(1 << 32))
SIZE = 3 << 20
# A probe each 2 s, a heartbeat each 2 s, and this machine's load.
SEEN = 2 + 2 + 4
HUNG = 10 + 2 + 1
FAULTS = 5


class BlockFaults(ClusterTest):
    kind = None

    def setUp(self):
        if self.kind is None:
            self.skipTest('of a kind only')
        need_faultfs(self)
        need_disks(self, self.kind)
        print(f'PREDELLA_BLOCK_SEED={SEED} {self.kind}')
        self.rng = random.Random(SEED)
        # Past the page cache: the blocks are asked for each time.
        self.disk = FaultMount(self, direct=True)
        self.image = os.path.join(self.disk.path, 'disk.img')
        self.backing = os.path.join(self.disk.backing, 'disk.img')
        with open(self.image, 'wb') as f:
            f.truncate(400 << 20)
        force = '-F' if self.kind == 'ext4' else '-f'
        subprocess.run([f'mkfs.{self.kind}', '-q', force, self.image],
                       check=True)
        self.path = tempfile.mkdtemp(prefix='bf-', dir='/tmp')
        self.addCleanup(os.rmdir, self.path)
        self.mount()
        self.addCleanup(self.let_go)
        self.cluster = Cluster((100,), [os.path.join(self.path, 'mount')],
                               agent_args=('--reserve', '16MiB'))
        self.cluster.add_mount('store-2', os.path.join(self.cluster.top, 'b'),
                               200)
        os.mkdir(self.cluster.paths['store-2'])
        self.addCleanup(self._stop)
        self.addCleanup(self.disk.heal)  # before its agent can end
        self.cluster.start()
        self.stored = {}
        self.injected = 0

    def mount(self):
        # -o loop: the device goes with the mount.
        subprocess.run(['mount', '-o', 'loop', self.image, self.path],
                       check=True)

    def let_go(self):
        subprocess.run(['umount', '-l', self.path], check=False)
        self.wait_released()

    def wait_released(self):
        """Nobody has the file system any more, so the device is gone."""
        def released():
            names = subprocess.run(['losetup', '-n', '-O', 'BACK-FILE'],
                                   check=True, capture_output=True).stdout
            return self.image.encode() not in names
        wait_until(f'{self.image} is released', released, 30)

    def health(self, name='store-1'):
        stat = self.cluster.cli('mount', 'stat', name, '-o', 'json').json
        return stat['health'].removeprefix('HEALTH_')

    def wait_health(self, *wanted, within=SEEN):
        wait_until(f'{self.kind}: store-1 is {wanted}, seed {SEED}',
                   lambda: self.health() in wanted, within)

    def put(self):
        """Stores one; returns where it lies."""
        data = random_bytes(SIZE, self.rng.getrandbits(32))
        image = self.cluster.put(data)
        self.stored[image] = data
        where, = self.cluster.where(image)
        return image, where

    def chill(self, image):
        """The next read is one of the disk."""
        fd = os.open(os.path.join(self.path, 'mount', image), os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    def get(self, image):
        """The answer; never other bytes than were stored."""
        got = self.cluster.cli('image', 'get', image, check=False)
        if got.code == 0:
            self.assert_same(got.out, self.stored[image],
                             f'{image}, seed {SEED}')
        return got

    def check_all(self):
        for image in self.stored:
            got = self.get(image)
            self.assertEqual(got.code, 0, f'{image}, seed {SEED}: {got.err}')

    def hurt(self, operations, action):
        return self.disk.rule(operations, action)

    def heal(self, rule):
        hits = self.disk.counts(rule)['injected']
        self.disk.heal()
        self.assertGreater(hits, 0, f'seed {SEED}: nothing was injected')
        self.injected += 1

    def test_the_disk_under_it_fails(self):
        first, where = self.put()
        self.assertEqual(where, 'store-1')
        os.sync()
        pids = {n: a.process.pid for n, a in self.cluster.agents.items()}
        self.slow_blocks()
        self.reads_fail(first)
        self.disk_hangs(first)
        self.bits_rot(first)
        self.assertEqual(pids, {n: a.process.pid for n, a in
                                self.cluster.agents.items()})
        self.writes_fail()
        print(f'{self.kind}: injected faults: {self.injected}', flush=True)
        self.assertEqual(self.injected, FAULTS)

    def slow_blocks(self):
        rule = self.hurt('write', 'delay:100')
        _, where = self.put()
        self.assertEqual(where, 'store-1')
        self.assertIn(self.health(), ('ONLINE', 'SLOW'))
        self.heal(rule)
        self.check_all()

    def reads_fail(self, first):
        os.sync()
        self.chill(first)
        rule = self.hurt('read', 'error:EIO')
        got = self.get(first)
        self.assertNotEqual(got.code, 0)
        self.assertIn('Input/output error', got.err)
        self.wait_health('SUSPECT', 'FAILED')
        _, where = self.put()
        self.assertEqual(where, 'store-2')
        self.heal(rule)
        # Its scrub begins by itself, and lets it take images again.
        self.wait_health('ONLINE', within=60)
        self.check_all()

    def disk_hangs(self, first):
        os.sync()
        self.chill(first)
        rule = self.hurt('*', 'hang')
        since = time.monotonic()
        answers = []
        stuck = threading.Thread(
            target=lambda: answers.append(self.get(first)))
        stuck.start()
        self.wait_health('HUNG', within=HUNG)
        print(f'{self.kind}: HUNG after {time.monotonic() - since:.1f} s')
        since = time.monotonic()
        _, where = self.put()
        self.assertEqual(where, 'store-2')
        self.assertLess(time.monotonic() - since, 10)
        self.heal(rule)
        since = time.monotonic()
        self.wait_health('ONLINE', within=90)
        print(f'{self.kind}: ONLINE {time.monotonic() - since:.1f} s after '
              'its end')
        stuck.join()
        self.assertEqual(len(answers), 1)
        self.check_all()

    def bits_rot(self, first):
        """Below the file system: no error of the kernel tells."""
        os.sync()
        data = self.stored[first]
        with open(self.backing, 'r+b') as f:
            at = f.read().find(data[8192:8192 + 64])
            self.assertGreater(at, 0, 'the image is not on its disk')
            f.seek(at + 7)
            f.write(bytes([data[8192 + 7] ^ 0x10]))
        self.chill(first)
        got = self.get(first)
        self.assertNotEqual(got.code, 0, f'seed {SEED}: {first} was served')
        degraded = self.cluster.cli('image', 'ls', '--degraded', '-o', 'json').json
        self.assertIn(first, str(degraded))
        stat = self.cluster.cli('image', 'stat', first).text
        self.assertIn('damaged', stat)
        self.wait_health('SUSPECT')  # said a heartbeat later
        del self.stored[first]
        self.cluster.cli('image', 'rm', first)
        self.injected += 1
        self.check_all()
        self.wait_health('ONLINE', within=60)

    def writes_fail(self):
        """ext4 ends its journal, XFS shuts down: a new mount is needed, and
        the agent lets the old one go without being asked."""
        rule = self.hurt('write', 'error:EIO')
        _, where = self.put()
        self.assertEqual(where, 'store-2')
        self.wait_health('SUSPECT', 'READ_ONLY', 'FAILED', 'ABSENT')
        self.heal(rule)
        subprocess.run(['umount', '-l', self.path], check=True)
        self.wait_health('ABSENT')
        self.wait_released()
        self.mount()
        self.wait_health('ONLINE', within=60)
        self.check_all()


class Ext4Test(BlockFaults):
    kind = 'ext4'


class XfsTest(BlockFaults):
    kind = 'xfs'


del BlockFaults

if __name__ == '__main__':
    unittest.main()
