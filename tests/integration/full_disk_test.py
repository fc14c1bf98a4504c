"""A real ext4 that is filled and emptied again and again, also out of inodes:
clean refusals, nothing left of what did not fit, all space back (reliability.md
G10). Needs root and loop mounts. PREDELLA_FULL_CYCLES is how often (3)."""
import os
import threading
import unittest

from cluster import MIB, Cluster, random_bytes, wait_until
from namespace_mounts import make_ext4, need_namespace

CYCLES = int(os.environ.get('PREDELLA_FULL_CYCLES', '3'))
TOGETHER = 8


class FullDiskTest(unittest.TestCase):
    def start(self, path):
        self.cluster = Cluster((100,), [path],
                               agent_args=('--reserve', '1MiB'))
        self.addCleanup(self.cluster.stop)
        self.cluster.start()
        self.path = path

    def space(self):
        """Free blocks and inodes; directories count as free: on ext4 they
        never shrink, and how far they grow is how many files met in them."""
        status = os.statvfs(self.path)
        directories = sum(os.stat(path).st_blocks * 512
                          for path, _, _ in os.walk(self.path))
        return (status.f_bavail + directories // status.f_frsize,
                status.f_favail)

    def records(self):
        """They go after the names."""
        return [f for _, _, files in os.walk(os.path.join(
            self.path, '.predella', 'records')) for f in files]

    def put(self, size, seed, flags=()):
        data = random_bytes(size, seed)
        result = self.cluster.cli('image', 'put', '-', *flags, data=data,
                                  check=False)
        if result.code == 0:
            return result.text.split()[-1], data
        self.assertRegex(result.err, 'NO_SPACE_IN_CLUSTER|MOUNT_FULL')
        return None, None

    def cycle(self, turn, size):
        """Eight at a time until several were refused; then deletes all."""
        stored, refused = {}, 0
        lock = threading.Lock()

        def worker(number):
            nonlocal refused
            for i in range(100):
                flags = ('--size', str(size)) if (number + i) % 2 else ()
                image, data = self.put(size, turn * 10000 + number * 100 + i,
                                       flags)
                with lock:
                    if image is None:
                        refused += 1
                        return
                    stored[image] = data
        threads = [threading.Thread(target=worker, args=(n,))
                   for n in range(TOGETHER)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(refused, TOGETHER)
        self.assertGreater(len(stored), 0)
        self.assertEqual(self.cluster.files('store-1'), sorted(stored))
        for image, data in stored.items():
            self.assertEqual(self.cluster.get(image), data)
        self.assertEqual(self.cluster.cli(
            'mount', 'stat', 'store-1', '-o', 'json').json['health'],
            'HEALTH_ONLINE')
        self.cluster.cli('image', 'rm', *stored)
        wait_until('all is removed', lambda: not self.cluster.files('store-1')
                   and not self.cluster.inflight('store-1')
                   and not self.records())
        return len(stored)

    def run_cycles(self, size):
        # The first makes what is made once.
        self.cycle(0, size)
        before = self.space()
        counts = [self.cycle(turn + 1, size) for turn in range(CYCLES)]
        after = self.space()
        print(f'{len(counts)} cycles, stored {counts}; blocks and inodes free '
              f'{before}, then {after}')
        self.assertEqual(before[1], after[1])
        self.assertLessEqual(abs(before[0] - after[0]), 1)

    def test_filled_and_emptied(self):
        need_namespace(self)
        self.start(make_ext4(self, 64, '-m', '20'))
        self.run_cycles(2 * MIB)

    def test_out_of_inodes(self):
        need_namespace(self)
        path = make_ext4(self, 64, '-N', '400')
        self.start(path)
        self.run_cycles(20_000)
        self.assertGreater(self.space()[0] * os.statvfs(path).f_frsize,
                           8 * MIB)


if __name__ == '__main__':
    unittest.main(verbosity=2)
