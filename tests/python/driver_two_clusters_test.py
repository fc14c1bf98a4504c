"""Two real clusters, and endpoints that lead to the wrong one."""
import io
import time
import unittest
import uuid

import environment

from glance_store import exceptions

from cluster import Cluster

LATE_DELETE = getattr(exceptions, 'TimeoutError',
                      exceptions.RemoteServiceUnavailable)


class TwoClustersTest(unittest.TestCase):
    def setUp(self):
        self.here, self.there = Cluster((100,)), Cluster((100,))
        # Another address of it, which nothing but the cluster tells.
        self.again = f'unix:{self.here.sockets}/again'
        self.here.coordinator.argv += ['--listen', self.again]
        for cluster in (self.here, self.there):
            cluster.start()
            self.addCleanup(cluster.stop)
        environment.use_native(None)
        self.configure(self.here.endpoint, self.there.endpoint)
        image = str(uuid.uuid4())
        uri = self.stores['slow'].add(image, io.BytesIO(b'abc'), 3,
                                      'sha512')[0]
        self.place = environment.where(self.conf, uri, 'slow')

    def configure(self, fast, slow):
        self.conf, self.stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': fast},
            slow={'type': 'predella', 'predella_endpoint': slow})

    def assert_refused(self, why):
        slow = self.stores['slow']
        for ask, refusal in ((slow.get, exceptions.RemoteServiceUnavailable),
                             (slow.get_size,
                              exceptions.RemoteServiceUnavailable),
                             (slow.delete, LATE_DELETE)):
            with self.assertRaises(refusal) as caught:
                ask(self.place)
            self.assertIn(why, str(caught.exception))

    def test_no_image_is_forgotten(self):
        self.configure(self.here.endpoint, self.again)
        self.assert_refused('slow and fast reach the same cluster')
        self.configure(self.there.endpoint, self.here.endpoint)
        self.assert_refused('lies in the cluster of fast')
        self.configure(self.here.endpoint, self.there.endpoint)
        self.assertEqual(b'abc', b''.join(
            self.stores['slow'].get(self.place)[0]))
        self.stores['slow'].delete(self.place)
        self.assertRaises(exceptions.NotFound, self.stores['slow'].get,
                          self.place)

    def test_the_other_one_is_away_or_hangs(self):
        self.stores['slow'].delete(self.place)
        for stop, go_on in ((self.here.coordinator.pause,
                             self.here.coordinator.resume),
                            (self.here.coordinator.kill,
                             self.here.coordinator.start)):
            stop()
            try:
                self.configure(self.here.endpoint, self.there.endpoint)
                for most in (10, 2.5):  # once in 30 s
                    began = time.monotonic()
                    self.assertRaises(exceptions.NotFound,
                                      self.stores['slow'].get, self.place)
                    self.assertLess(time.monotonic() - began, most)
            finally:
                go_on()


if __name__ == '__main__':
    unittest.main()
