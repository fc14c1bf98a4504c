"""--thin: runs of zeros are holes on real file systems. Needs root: small file
systems in a mount namespace of its own, which run_in_namespace.sh makes."""
import os
import unittest

from cluster import MIB, Cluster, ClusterTest, random_bytes, wait_until
from namespace_mounts import make_ext4, make_tmpfs, need_namespace


def sparse(seed, size=40 * MIB):
    """A disk with a partition table, 3 MiB in the middle, and no end."""
    data = bytearray(size)
    data[:1000] = random_bytes(1000, seed)
    at = 17 * MIB + 4321
    data[at:at + 3 * MIB] = random_bytes(3 * MIB, seed + 1)
    return bytes(data)


class ThinTest(ClusterTest):
    def setUp(self):
        need_namespace(self)

    def start(self, directory, *args):
        self.cluster = Cluster((100,), [directory],
                               agent_args=('--reserve', '1MiB', *args))
        self.addCleanup(self._stop)
        self.cluster.start()

    def allocated(self, image):
        path = os.path.join(self.cluster.paths['store-1'], image)
        return os.stat(path).st_blocks * 512

    def available(self):
        """Once nothing is promised any more."""
        def settled():
            mount = self.cluster.cli('mount', 'stat', 'store-1', '-o',
                                     'json').json
            return (int(mount.get('promisedBytes', 0)) == 0
                    and int(mount['availableBytes']))
        return wait_until('nothing is promised any more', settled)

    def check_images(self):
        before = self.available()
        for i in range(5):
            data = sparse(10 * i)
            size = ('--size', str(len(data))) if i % 2 else ()
            image = self.cluster.put(data, *size)
            self.assert_same(self.cluster.get(image), data, f'image {i}')
            self.assertLess(self.allocated(image), 3 * MIB + 300000)
            path = os.path.join(self.cluster.paths['store-1'], image)
            self.assertEqual(os.stat(path).st_size, len(data))
            with open(path, 'rb') as f:
                self.assert_same(f.read(), data, 'the plain file')
        # 200 MiB of images in a file system of 96: what is reported as
        # available is what the file system has.
        wait_until('the space was read again', lambda: (
            15 * MIB < before - self.available() < 5 * (3 * MIB + 300000) + MIB))

    def test_tmpfs(self):
        self.start(make_tmpfs(self, 96)[0], '--thin')
        self.check_images()

    def test_ext4(self):
        self.start(make_ext4(self, 96), '--thin')
        self.check_images()
        # A scrub reads every byte cold, the holes too.
        self.cluster.cli('mount', 'scrub', 'store-1', '--rate', '1GiB',
                         '--wait')

    def test_without_it_zeros_are_written(self):
        self.start(make_ext4(self, 96))
        image = self.cluster.put(sparse(1))
        self.assertGreaterEqual(self.allocated(image), 40 * MIB)

    def test_an_agent_is_killed_in_a_hole(self):
        self.start(make_ext4(self, 256), '--thin')
        data = sparse(5, 120 * MIB)
        upload = self.cluster.spawn_cli('image', 'put', '-')
        upload.stdin.write(data[:60 * MIB])
        upload.stdin.flush()
        wait_until('much of it came', lambda: any(
            os.stat(os.path.join(self.cluster.paths['store-1'], '.predella',
                                 'inflight', name)).st_size > 40 * MIB
            for name in self.cluster.inflight('store-1')
            if not name.endswith('.state')))
        agent = self.cluster.agents['store-1']
        agent.kill()
        agent.start()
        out, err = upload.communicate(data[60 * MIB:], timeout=60)
        self.assertEqual(upload.returncode, 0, err.decode())
        image = out.decode().split()[-1]
        self.assert_same(self.cluster.get(image), data, 'after the kill')
        self.assertLess(self.allocated(image), 4 * MIB)

    def test_a_size_that_does_not_fit_is_refused_all_the_same(self):
        """As Glance's own store does: nobody knows yet that it is zeros."""
        self.start(make_tmpfs(self, 32)[0], '--thin')
        result = self.cluster.cli('image', 'put', '-', '--size', str(40 * MIB),
                                  data=sparse(3), check=False)
        self.assertNotEqual(result.code, 0)
        self.assertIn('40 MiB', result.err)
        image = self.cluster.put(sparse(3))
        self.assertLess(self.allocated(image), 4 * MIB)


if __name__ == '__main__':
    unittest.main()
