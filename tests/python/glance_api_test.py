"""A real glance-api (Debian's, under eventlet and under uWSGI) with the driver
in it: uploads, downloads and deletes by HTTP, beside a stock store."""
import concurrent.futures
import hashlib
import os
import random
import socket
import time
import unittest
import uuid

from database_servers import MariaDb
from glance_store import exceptions
from real_glance import DEBIANS_UWSGI
from real_glance import Glance
from real_glance import USER
from real_glance import UWSGI
from cluster import Cluster
from cluster import wait_until

MIB = 1 << 20
STORES = '''
[fast]
predella_endpoint = ENDPOINT
predella_write_timeout = 3
predella_read_timeout = 3
[disk]
filesystem_store_datadir = {top}/disk
[many]
filesystem_store_datadir =
filesystem_store_datadirs = {top}/many-1:100
filesystem_store_datadirs = {top}/many-2:200
'''


class GlanceCase:
    UWSGI = False

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster((100, 200)).start()
        cls.addClassCleanup(cls.cluster.stop)
        others = {}
        # SQLite tells real threads that the database is locked.
        cls.at_once = not cls.UWSGI
        if cls.UWSGI and not MariaDb.missing():
            server = MariaDb()
            cls.addClassCleanup(server.stop)
            others['database'] = server.url
            cls.at_once = True
        cls.glance = Glance(
            'fast:predella, disk:file, many:file',
            STORES.replace('ENDPOINT', cls.cluster.endpoint), cls.UWSGI,
            **others)
        cls.addClassCleanup(cls.glance.stop)

    def data(self, size):
        return random.Random(size).randbytes(size)

    def assert_same(self, got, want):
        if got != want:
            self.fail(f'{len(got)} bytes, wanted {len(want)}: '
                      f'{self.glance.log()[-3000:]}')

    def test_stores(self):
        status, stores = self.glance.call('GET', '/v2/info/stores')
        self.assertEqual(200, status)
        self.assertEqual({'fast', 'disk', 'many'},
                         {store['id'] for store in stores['stores']})

    def test_stores_in_detail(self):
        status, answer = self.glance.call('GET', '/v2/info/stores/detail')
        self.assertEqual(200, status, self.glance.log()[-3000:])
        stores = {store['id']: store for store in answer['stores']}
        self.assertEqual(['fast', 'disk', 'many'], list(stores))
        self.assertEqual('predella', stores['fast']['type'])
        self.assertEqual('true', stores['fast']['default'])
        # Not whether it is thin, which is not for the store to say.
        self.assertEqual({'endpoint': self.cluster.endpoint},
                         stores['fast']['properties'])
        # As Glance itself describes it.
        self.assertEqual(os.path.join(self.glance.top, 'disk'),
                         stores['disk']['properties']['data_dir'])
        self.assertIn('many-2:200', stores['many']['properties']['data_dir'])
        # Only for whom the policy allows it.
        self.assertEqual(403, self.glance.call(
            'GET', '/v2/info/stores/detail', X_Roles='member')[0])

    def test_upload_show_download_delete(self):
        for size in (0, 1, 64 * 1024 - 1, 8 * MIB, 40 * MIB + 3):
            for chunked in (False, True):
                with self.subTest(size=size, chunked=chunked):
                    data = self.data(size)
                    image = self.glance.create()
                    self.assertEqual(
                        204, self.glance.upload(image, data, chunked),
                        self.glance.log()[-3000:])
                    shown = self.glance.show(image)
                    self.assertEqual(
                        ('active', size, hashlib.md5(data).hexdigest(),
                         hashlib.sha512(data).hexdigest(), 'fast'),
                        (shown['status'], shown['size'], shown['checksum'],
                         shown['os_hash_value'], shown['stores']))
                    self.assertTrue(self.cluster.where(image))
                    status, got = self.glance.download(image)
                    self.assertEqual(200, status)
                    self.assert_same(got, data)
                    self.assertEqual(204, self.glance.call(
                        'DELETE', f'/v2/images/{image}')[0])
                    self.assertNotIn(image, self.cluster.cli(
                        'image', 'ls').text)

    def test_large(self):
        data = self.data(10 * MIB + 1) * 30
        for chunked in (False, True):
            image = self.glance.create()
            self.assertEqual(204, self.glance.upload(image, data, chunked))
            status, got = self.glance.download(image)
            self.assertEqual(200, status)
            self.assert_same(got, data)

    def test_ranges(self):
        data = self.data(3 * MIB + 5)
        image = self.glance.create()
        self.assertEqual(204, self.glance.upload(image, data))
        for first, last in ((0, 0), (5, 99), (MIB - 1, MIB),
                            (2 * MIB, len(data) - 1)):
            status, got = self.glance.download(
                image, Range=f'bytes={first}-{last}')
            self.assertEqual(206, status)
            self.assert_same(got, data[first:last + 1])
        self.assertEqual(416, self.glance.download(
            image, Range=f'bytes={len(data)}-')[0])

    def test_service_away(self):
        image = self.glance.create()
        held = self.glance.create()
        self.assertEqual(204, self.glance.upload(held, b'held'))
        self.cluster.coordinator.kill()
        try:
            self.assertEqual(503, self.glance.upload(image, b'abc'))
            self.assertEqual('queued', self.glance.show(image)['status'])
            self.assertEqual(503, self.glance.download(held)[0])
            # The other store is not concerned.
            other = self.glance.create()
            self.assertEqual(204, self.glance.upload(
                other, b'other', X_Image_Meta_Store='disk'))
            self.assertEqual((200, b'other'), self.glance.download(other))
            self.assertEqual(
                503 if hasattr(exceptions, 'TimeoutError') else 500,
                self.glance.call('DELETE', f'/v2/images/{held}')[0])
        finally:
            self.cluster.coordinator.start()
            self.cluster.wait_ready()
        self.assertEqual('active', self.glance.show(held)['status'])
        self.assertEqual((200, b'held'), self.glance.download(held))
        self.assertEqual(204, self.glance.upload(image, b'abc'))

    def test_an_id_in_upper_case(self):
        image = str(uuid.uuid4()).upper()
        status, _ = self.glance.call('POST', '/v2/images', {
            'name': 'a', 'id': image, 'disk_format': 'raw',
            'container_format': 'bare'})
        self.assertEqual(201, status)
        status, answer = self.glance.call(
            'PUT', f'/v2/images/{image}/file', b'abc')
        self.assertEqual(400, status)
        self.assertIn(b'a UUID in lower case', answer)
        self.assertEqual('queued', self.glance.show(image)['status'])
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{image}')[0])

    def test_client_leaves(self):
        image = self.glance.create()
        connection = socket.create_connection(('127.0.0.1', self.glance.port))
        head = ''.join(f'{k}: {v}\r\n' for k, v in USER.items())
        connection.sendall((
            f'PUT /v2/images/{image}/file HTTP/1.1\r\nHost: x\r\n{head}'
            'Content-Type: application/octet-stream\r\n'
            f'Content-Length: {100 * MIB}\r\n\r\n').encode())
        connection.sendall(bytes(20 * MIB))
        time.sleep(0.5)
        connection.close()
        wait_until('what was sent is removed', lambda: not any(
            self.cluster.inflight(name) for name in self.cluster.paths))
        wait_until('the image is queued again', lambda: (
            self.glance.show(image)['status'] == 'queued'))
        self.assertEqual(204, self.glance.upload(image, b'abc'))

    def test_copied_between_stores(self):
        data = self.data(2 * MIB + 1)
        for first, second in (('fast', 'disk'), ('disk', 'fast')):
            image = self.glance.create()
            self.assertEqual(204, self.glance.upload(
                image, data, X_Image_Meta_Store=first))
            status, answer = self.glance.call(
                'POST', f'/v2/images/{image}/import',
                {'method': {'name': 'copy-image'}, 'stores': [second]})
            self.assertEqual(202, status, answer)
            wait_until(f'the image is in {second} too', lambda: (
                set(self.glance.show(image)['stores'].split(',')) ==
                {'fast', 'disk'}), 30)
            # Its last steps write, and SQLite has one writer.
            wait_until('the import has ended', lambda: all(
                task['status'] == 'success' for task in self.glance.call(
                    'GET', f'/v2/images/{image}/tasks')[1]['tasks']), 30)
            self.assertEqual(
                204, self.glance.call(
                    'DELETE', f'/v2/stores/{first}/{image}')[0],
                self.glance.log()[-3000:])
            status, got = self.glance.download(image)
            self.assertEqual(200, status)
            self.assert_same(got, data)

    def test_many_at_once(self):
        """More than tpool has threads."""
        if not self.at_once:
            self.skipTest(MariaDb.missing())
        data = self.data(5 * MIB + 1)

        def one(number):
            image = self.glance.create()
            status = self.glance.upload(image, data, number % 2 == 1)
            if status != 204:
                return status
            status, got = self.glance.download(image)
            return status == 200 and got == data
        with concurrent.futures.ThreadPoolExecutor(30) as pool:
            self.assertEqual([True] * 60, list(pool.map(one, range(60))),
                             self.glance.log()[-3000:])


@unittest.skipIf(UWSGI != DEBIANS_UWSGI, 'of Glances before 33.0')
class EventletTest(GlanceCase, unittest.TestCase):
    pass


@unittest.skipUnless(os.path.exists(UWSGI), 'needs uwsgi-core')
class UwsgiTest(GlanceCase, unittest.TestCase):
    UWSGI = True


if __name__ == '__main__':
    unittest.main()
