"""One sector of one image can not be read, and a client does not give up: the
image is named, and the scrub that its mount needs is not held off by that. Or
it hangs: the read ends in time.

Needs root and FUSE.
"""
import json
import threading
import time
import unittest

from cluster import MIB, Cluster, random_bytes, wait_until
from fault_mount import FaultMount, need_faultfs


class BadSectorTest(unittest.TestCase):
    def setUp(self):
        need_faultfs(self)
        self.disk = FaultMount(self, direct=True)
        self.cluster = Cluster(())
        self.addCleanup(self.stop)
        self.cluster.add_mount('store-1', self.disk.path,
                               100, ('--reserve', '1MiB'))
        self.cluster.start()
        self.reads = []
        self.ended = threading.Event()

    def stop(self):
        if not self._outcome.success:
            self.cluster.print_logs()
        if hasattr(self, 'ended'):
            self.ended.set()
        self.disk.remove()
        self.cluster.stop()

    def read_again_and_again(self, image):
        while not self.ended.is_set():
            self.reads.append(self.cluster.cli('image', 'get', image,
                                               check=False).code)

    def degraded(self):
        return {i['name'].split('/')[1]: i['healthDetail'] for i in
                self.cluster.cli('image', 'ls', '--degraded', '-o',
                                 'json').json.get('images', [])}

    def mount(self):
        mounts = self.cluster.cli('mount', 'ls', '-o', 'json').json['mounts']
        return mounts[0]

    def test_it_is_named_and_scrubbed_while_a_client_reads_on(self):
        image = self.cluster.put(random_bytes(3 * MIB, 1))
        other = random_bytes(MIB, 2)
        whole = self.cluster.put(other)
        rule = self.disk.rule('read', 'error:EIO', path=image)
        since = time.monotonic()
        reader = threading.Thread(target=self.read_again_and_again,
                                  args=(image,), daemon=True)
        reader.start()
        detail = wait_until('the image is named', self.degraded, 15)
        print(f'named after {time.monotonic() - since:.1f} s: {detail}')
        self.assertEqual(list(detail), [image])
        self.assertIn('can not be read', detail[image])

        def scrubbed():
            mount = self.mount()
            scrub = mount.get('scrub', {})
            return (mount['health'] == 'HEALTH_ONLINE' and
                    scrub.get('state') == 'SCRUB_STATE_DONE' and
                    not scrub.get('required')) and scrub
        scrub = wait_until('the mount was scrubbed', scrubbed, 50)
        print(f'scrubbed after {time.monotonic() - since:.1f} s, '
              f'{len(self.reads)} reads failed meanwhile')
        self.assertEqual(int(scrub['faultCount']), 1, json.dumps(scrub))
        self.assertEqual(list(self.degraded()), [image])
        self.assertNotIn(0, self.reads)
        self.assertGreater(len(self.reads), 3)
        self.assertGreater(self.disk.counts(rule)['injected'], 3)
        self.assertTrue(reader.is_alive())
        self.assertEqual(self.cluster.get(whole), other)
        self.ended.set()
        reader.join()

        self.disk.heal()
        self.cluster.cli('mount', 'scrub', 'store-1', '--wait')
        wait_until('the finding is taken back',
                   lambda: not self.degraded(), 15)

    def test_a_read_that_hangs_ends_in_time(self):
        image = self.cluster.put(random_bytes(3 * MIB, 1))
        other = random_bytes(MIB, 2)
        whole = self.cluster.put(other)
        rule = self.disk.rule('read', 'hang', path=image)
        since = time.monotonic()
        result = self.cluster.cli('image', 'get', image, check=False,
                                  timeout=180)
        took = time.monotonic() - since
        print(f'ended after {took:.1f} s: {result.err}')
        self.assertEqual(result.code, 4)
        self.assertIn('MOUNT_STALLED', result.err)
        self.assertIn('mounts/store-1', result.err)
        self.assertLess(took, 45)
        self.assertGreater(self.disk.counts(rule)['waiting'], 0)
        self.assertEqual(self.cluster.get(whole), other)


if __name__ == '__main__':
    unittest.main(verbosity=2)
