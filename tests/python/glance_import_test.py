"""Imports through a real glance-api: from the web, staged, into two stores at
once."""
import hashlib
import http.server
import random
import threading
import unittest

from real_glance import Glance
from cluster import Cluster
from cluster import wait_until

MIB = 1 << 20
STORES = '''
[fast]
predella_endpoint = ENDPOINT
[disk]
filesystem_store_datadir = {top}/disk
[import_filtering_opts]
allowed_ports = [PORT]
allowed_hosts = [127.0.0.1]
# From Glance 33 on; before, one store after the other.
[image_import_opts]
max_parallel_stores = 2
'''


class ImportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster((100, 200)).start()
        cls.addClassCleanup(cls.cluster.stop)
        cls.data = random.Random(7).randbytes(11 * MIB + 3)

        class Web(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header('Content-Length', str(len(cls.data)))
                self.end_headers()
                self.wfile.write(cls.data)

            def log_message(self, *args):
                pass
        web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Web)
        cls.addClassCleanup(web.server_close)
        cls.addClassCleanup(web.shutdown)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        cls.url = f'http://127.0.0.1:{web.server_port}/image'
        cls.glance = Glance(
            'fast:predella, disk:file',
            STORES.replace('ENDPOINT', cls.cluster.endpoint).replace(
                'PORT', str(web.server_port)),
            more='enabled_import_methods = [glance-direct,web-download]')
        cls.addClassCleanup(cls.glance.stop)

    def finish(self, image, method, stores):
        status, answer = self.glance.call(
            'POST', f'/v2/images/{image}/import',
            {'method': method, 'stores': stores})
        self.assertEqual(202, status, answer)
        wait_until('it is imported', lambda: all(
            task['status'] in ('success', 'failure') for task in
            self.glance.call('GET', f'/v2/images/{image}/tasks')[1]['tasks'])
            and self.glance.show(image)['status'] == 'active', 60)
        shown = self.glance.show(image)
        self.assertEqual(
            (len(self.data), hashlib.md5(self.data).hexdigest(),
             hashlib.sha512(self.data).hexdigest(), set(stores)),
            (shown['size'], shown['checksum'], shown['os_hash_value'],
             set(shown['stores'].split(','))), self.glance.log()[-3000:])
        self.assertTrue(self.cluster.where(image))
        self.assertTrue(self.glance.download(image)[1] == self.data)

    def test_from_the_web(self):
        self.finish(self.glance.create(),
                    {'name': 'web-download', 'uri': self.url}, ['fast'])

    def test_staged_into_two_stores(self):
        image = self.glance.create()
        self.assertEqual(204, self.glance.call(
            'PUT', f'/v2/images/{image}/stage', self.data)[0])
        self.finish(image, {'name': 'glance-direct'}, ['fast', 'disk'])
        # Each is whole by itself.
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/stores/disk/{image}')[0])
        self.assertTrue(self.glance.download(image)[1] == self.data)


if __name__ == '__main__':
    unittest.main()
