"""A real glance-api with stores whose sections are wrong beside others: those
work, and are described."""
import unittest

from real_glance import DEBIANS_UWSGI
from real_glance import Glance
from real_glance import UWSGI
from cluster import Cluster

BACKENDS = ('fast:predella, bare:predella, wild:predella, disk:file, '
            'nowhere:file, cloud:s3')
STORES = '''
[fast]
predella_endpoint = ENDPOINT
[bare]
[wild]
predella_endpoint = unix:$nosuch/coordinator.sock
[disk]
filesystem_store_datadir = {top}/disk
[cloud]
[nowhere]
filesystem_store_datadir =
'''


class WrongSectionsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster((100,)).start()
        cls.addClassCleanup(cls.cluster.stop)
        cls.glance = Glance(BACKENDS, STORES.replace(
            'ENDPOINT', cls.cluster.endpoint), UWSGI != DEBIANS_UWSGI)
        cls.addClassCleanup(cls.glance.stop)

    def test_the_others_take_images(self):
        for store, status in (('fast', 204), ('disk', 204), ('bare', 410),
                              ('wild', 410)):
            with self.subTest(store):
                image = self.glance.create()
                self.assertEqual(status, self.glance.upload(
                    image, b'abc', X_Image_Meta_Store=store),
                    self.glance.log()[-3000:])
                if status == 204:
                    self.assertEqual((200, b'abc'),
                                     self.glance.download(image))
                    self.assertEqual(204, self.glance.call(
                        'DELETE', f'/v2/images/{image}')[0])

    def test_all_are_described(self):
        status, answer = self.glance.call('GET', '/v2/info/stores/detail')
        self.assertEqual(200, status, self.glance.log()[-3000:])
        stores = {store['id']: store for store in answer['stores']}
        self.assertEqual([one.split(':')[0] for one in BACKENDS.split(', ')],
                         list(stores))
        self.assertEqual({'endpoint': self.cluster.endpoint},
                         stores['fast']['properties'])
        self.assertEqual(f'{self.glance.top}/disk',
                         stores['disk']['properties']['data_dir'])
        for name, kind in (('wild', 'predella'), ('nowhere', 'file')):
            self.assertEqual((kind, {}), (stores[name]['type'],
                                          stores[name]['properties']))
            self.assertIn(f'store {name} of type {kind} has no properties',
                          self.glance.log())
        self.assertEqual(403, self.glance.call(
            'GET', '/v2/info/stores/detail', X_Roles='member')[0])


if __name__ == '__main__':
    unittest.main()
