"""How images are spread, and what is said when there is no room. Needs root:
small tmpfs in a mount namespace of its own."""
import os
import random
import re
import tempfile
import threading
import unittest

from cluster import MIB, Cluster, ClusterTest, random_bytes, wait_until
from namespace_mounts import make_tmpfs, need_namespace

EVEN_FILES = 300
EVEN_SEED = 20240607
MOST_UNEVEN = 1.05


class CapacityTest(ClusterTest):
    priorities = (100, 100, 100)
    sizes = (128, 128, 128)  # MiB
    reserves = ('1MiB', '1MiB', '1MiB')

    def setUp(self):
        need_namespace(self)
        directories = make_tmpfs(self, *self.sizes)
        self.cluster = Cluster((), coordinator_args=self.coordinator_args)
        for i, path in enumerate(directories):
            self.cluster.add_mount(f'store-{i + 1}', path, self.priorities[i],
                                   ('--reserve', self.reserves[i]))
        self.addCleanup(self._stop)
        self.cluster.start()

    def free(self, name):
        status = os.statvfs(self.cluster.paths[name])
        return status.f_bavail * status.f_frsize

    def used(self):
        result = {}
        for name, path in self.cluster.paths.items():
            result[name] = sum(os.path.getsize(os.path.join(path, f))
                               for f in self.cluster.files(name))
        return result

    def put_all(self, sizes, threads, known=True):
        """Puts images of these sizes; returns {size index: (exit code, id or
        error)}."""
        results = {}
        order = iter(enumerate(sizes))
        lock = threading.Lock()
        block = random_bytes(max(sizes), 1)

        def work():
            while True:
                with lock:
                    i, size = next(order, (None, 0))
                if i is None:
                    return
                flags = ('--size', str(size)) if known else ()
                result = self.cluster.cli(
                    'image', 'put', '-', *flags, data=block[:size],
                    check=False)
                results[i] = (result.code, result.text.strip() or result.err)
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(len(results), len(sizes))
        return results


class EvennessTest(CapacityTest):
    sizes = (256, 256, 256)

    def test_three_hundred_files_of_mixed_sizes(self):
        rng = random.Random(EVEN_SEED)
        # From 4 KiB to 8 MiB, as many small ones as large ones.
        sizes = [int(4096 * 2048 ** rng.random()) for _ in range(EVEN_FILES)]
        results = self.put_all(sizes, threads=4)
        self.assertEqual({code for code, _ in results.values()}, {0})
        used = self.used()
        mean = sum(used.values()) / len(used)
        ratio = max(used.values()) / mean
        print(f'seed {EVEN_SEED}: {EVEN_FILES} files, '
              f'{sum(sizes) // MIB} MiB: {used}, '
              f'most-loaded / mean {ratio:.4f}')
        self.assertEqual(sum(used.values()), sum(sizes))
        self.assertLessEqual(ratio, MOST_UNEVEN)


class FullClusterTest(CapacityTest):
    sizes = (48, 64, 96)
    reserves = ('8MiB', '8MiB', '8MiB')

    def test_sparse_file_of_twenty_gib_is_refused_at_the_start(self):
        before = {name: self.free(name) for name in self.cluster.paths}
        with tempfile.NamedTemporaryFile(dir=self.cluster.top) as f:
            f.truncate(20 << 30)
            result = self.cluster.cli('image', 'put', f.name, check=False)
        self.assertEqual(result.out, b'')
        self.says_no_space(result.err, '20 GiB')
        # Nothing was transferred: not even a file was begun.
        for name in self.cluster.paths:
            self.assertEqual(self.cluster.inflight(name), [])
            self.assertEqual(self.free(name), before[name])

    def says_no_space(self, error, wanted):
        """The sentence has what was wanted and the numbers of each mount."""
        print(error)
        self.assertIn('NO_SPACE_IN_CLUSTER', error)
        self.assertIn(wanted, error)
        for name in self.cluster.paths:
            self.assertRegex(
                error, re.compile(name + r'\b[^;]*\d+(\.\d+)? [KMG]iB'))

    def test_full_cluster(self):
        stored = []
        for i in range(100):
            result = self.cluster.cli('image', 'put', '-', '--size',
                                      str(10 * MIB),
                                      data=random_bytes(10 * MIB, i),
                                      check=False)
            if result.code != 0:
                break
            stored.append((result.text.strip(), i))
        print(f'{len(stored)} images of 10 MiB were taken')
        self.assertNotEqual(result.code, 0, 'it never became full')
        self.says_no_space(result.err, '10 MiB')
        # Room for 3 + 5 + 8 above the reserves.
        self.assertGreaterEqual(len(stored), 14)
        for name in self.cluster.paths:
            self.assertGreaterEqual(self.free(name), 8 * MIB, name)
        for image, seed in stored:
            self.assert_same(self.cluster.get(image),
                             random_bytes(10 * MIB, seed), image)
        # What is deleted can be used again.
        self.cluster.cli('image', 'rm', stored[0][0])

        def taken():
            return self.cluster.cli('image', 'put', '-', '--size',
                                    str(10 * MIB), check=False,
                                    data=random_bytes(10 * MIB, 1)).code == 0
        wait_until('the space of the deleted one is used', taken)


class TogetherTest(CapacityTest):
    """50 uploads at once."""
    sizes = (64, 64, 96)
    # 48, 56 and 76 MiB above them.
    reserves = ('16MiB', '8MiB', '20MiB')

    def together(self, mib, known):
        """Returns how many of 50 were stored; checks that no mount went below
        its reserve and that nothing is left of the others."""
        size = int(mib * MIB)
        results = self.put_all([size] * 50, threads=50, known=known)
        stored = [i for code, i in results.values() if code == 0]
        refused = [e for code, e in results.values() if code != 0]
        used = self.used()
        free = {n: self.free(n) // MIB for n in self.cluster.paths}
        print(f'50 of {mib} MiB: {len(stored)} stored, {len(refused)} refused;'
              f' bytes {used}, MiB left {free}')
        self.assertGreater(len(refused), 0, 'nothing was injected')
        self.assertEqual(sum(used.values()), len(stored) * size)
        for error in refused:
            self.assertRegex(error, 'NO_SPACE_IN_CLUSTER|MOUNT_FULL')
        for i, name in enumerate(self.cluster.paths):
            reserve = int(self.reserves[i].removesuffix('MiB')) * MIB
            self.assertGreaterEqual(self.free(name), reserve, name)
            wait_until(f'nothing is left in flight on {name}',
                       lambda n=name: not self.cluster.inflight(n))
        return len(stored)

    def test_more_of_known_size_than_fit(self):
        stored = self.together(5, known=True)
        # 9 + 11 + 15 but for what records and directories take.
        self.assertGreaterEqual(stored, 30)
        self.assertTrue(all(self.used().values()), self.used())

    def test_more_of_unknown_size_than_fit(self):
        # Each needs 4 MiB to begin and they may take the last room from each
        # other: how many get through is open, that none overfills is not.
        self.assertGreater(self.together(5, known=False), 0)


if __name__ == '__main__':
    unittest.main(verbosity=2)
