"""The disk of the index fills up: reads go on, writes are refused and it says
so, and it goes on by itself. Needs root: a small tmpfs in a mount namespace
of its own."""
import os
import unittest

from cluster import MIB, Cluster, ClusterTest, random_bytes, wait_until
from namespace_mounts import fill, make_tmpfs, need_namespace
from upload_faults_test import Upload

STATE_MIB = 192
# The index wants 64 MiB free: too little, but not nothing.
LEAVE = 16 * MIB


class IndexFullTest(ClusterTest):
    priorities = (100, 200)

    def setUp(self):
        need_namespace(self)
        self.disk, = make_tmpfs(self, STATE_MIB)
        self.cluster = Cluster(self.priorities)
        self.cluster.state = os.path.join(self.disk, 'state')
        os.mkdir(self.cluster.state)
        argv = self.cluster.coordinator.argv
        argv[argv.index('--state-dir') + 1] = self.cluster.state
        self.addCleanup(self._stop)
        self.cluster.start()
        self.images = {}
        self.filler = os.path.join(self.disk, 'filler')

    def store(self, count):
        for _ in range(count):
            seed = len(self.images)
            self.images[self.cluster.put(random_bytes(5000 + seed, seed))] = (
                seed)

    def check_images(self):
        for image, seed in self.images.items():
            self.assert_same(self.cluster.get(image),
                             random_bytes(5000 + seed, seed), image)

    def fill_disk(self, leave):
        written = fill(self.filler, leave)
        print(f'{written} bytes of filler, {leave} left')
        self.assertGreater(written, 0, 'nothing was injected')

        # Free space is asked once a second. Until then an upload may still
        # start, and its commit would wait for the space: so none is tried
        # before the coordinator says what it knows.
        wait_until('the status says so', lambda: 'INDEX_READ_ONLY' in
                   self.cluster.cli('cluster', 'status', check=False).text)
        result = self.cluster.cli('image', 'put', '-', data=b'x', check=False)
        self.assertEqual(result.code, 4, result.err)
        self.assertIn('INDEX_READ_ONLY', result.err)
        self.assertRegex(result.err, 'takes no (writes|changes)')

    def check_read_only(self):
        self.check_images()
        some = next(iter(self.images))
        self.assertIn(some, self.cluster.cli('image', 'ls').text)
        self.cluster.cli('image', 'stat', some)
        self.cluster.cli('mount', 'ls')
        removed = self.cluster.cli('image', 'rm', some, check=False)
        self.assertIn('INDEX_READ_ONLY', removed.err)
        cordoned = self.cluster.cli('mount', 'cordon', 'store-1', check=False)
        self.assertIn('INDEX_READ_ONLY', cordoned.err)
        status = self.cluster.cli('cluster', 'status', check=False)
        self.assertIn('INDEX_READ_ONLY', status.text)
        shown = self.cluster.cli('cluster', 'status', '-o', 'json',
                                 check=False).json
        self.assertTrue(shown['indexReadOnly'] if 'indexReadOnly' in shown
                        else shown['index_read_only'], shown)
        self.check_images()

    def takes_writes_again(self):
        wait_until('writes are taken again', lambda: self.cluster.cli(
            'image', 'put', '-', data=b'y', check=False).code == 0)
        status = self.cluster.cli('cluster', 'status', check=False)
        self.assertNotIn('INDEX_READ_ONLY', status.text)
        self.store(3)
        removed = next(iter(self.images))
        self.cluster.cli('image', 'rm', removed)
        del self.images[removed]
        self.check_images()
        # And all of it is on the disk.
        self.cluster.coordinator.kill()
        self.cluster.coordinator.start()
        self.cluster.wait_ready()
        self.check_images()
        gone = self.cluster.cli('image', 'stat', removed, check=False)
        self.assertEqual(gone.code, 3, gone.err)

    def test_goes_on_by_itself(self):
        self.store(10)
        pid = self.cluster.coordinator.process.pid
        data = random_bytes(20 * MIB, 77)
        upload = Upload(self.cluster)
        upload.feed(data[:10 * MIB])
        wait_until('an upload is under way', lambda: sum(
            len(self.cluster.inflight(n)) for n in self.cluster.paths))
        self.fill_disk(LEAVE)
        self.check_read_only()
        # Not a byte left: still nobody ends.
        print(f'{fill(self.filler + "2")} bytes more, 0 left')
        self.check_read_only()
        self.assertTrue(self.cluster.coordinator.running())
        # The commit of what is under way waits for the space.
        upload.feed(data[10 * MIB:])
        upload.process.stdin.close()
        upload.process.stdin = None
        self.check_read_only()
        self.assertIsNone(upload.process.poll(), 'the commit did not wait')
        os.unlink(self.filler)
        os.unlink(self.filler + '2')
        upload.out, upload.err = upload.process.communicate(timeout=60)
        self.assertEqual(upload.process.returncode, 0, upload.err.decode())
        self.assert_same(self.cluster.get(upload.out.decode().split()[-1]),
                         data, 'the upload that was under way')
        self.assertEqual(self.cluster.coordinator.process.pid, pid)
        self.takes_writes_again()

    def test_started_on_a_full_disk(self):
        self.store(5)
        self.fill_disk(LEAVE)
        self.cluster.coordinator.kill()
        print('coordinator killed on a full disk')
        self.cluster.coordinator.start()
        wait_until('the images can be read', lambda: self.cluster.cli(
            'image', 'get', next(iter(self.images)), check=False).code == 0)
        self.check_read_only()
        os.unlink(self.filler)
        self.cluster.coordinator.kill()
        self.cluster.coordinator.start()
        self.cluster.wait_ready()
        self.takes_writes_again()


if __name__ == '__main__':
    unittest.main(verbosity=2)
