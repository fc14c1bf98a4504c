"""Two stores of a real glance-api that lead to one cluster by endpoints of
different spelling: no image may be lost by it."""
import random
import subprocess
import sys
import unittest

from glance_store import exceptions

from database_servers import MariaDb
from real_glance import DEBIANS_UWSGI
from real_glance import Glance
from real_glance import UWSGI
from cluster import Cluster
from cluster import binary
from cluster import wait_until

MIB = 1 << 20
LATE_DELETE = 503 if hasattr(exceptions, 'TimeoutError') else 500
STORES = '''
[fast]
predella_endpoint = ENDPOINT
[twin]
predella_endpoint = TWIN
[disk]
filesystem_store_datadir = {top}/disk
[old]
filesystem_store_datadir = MOUNT
'''


class TwinsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster((100, 200))
        cls.addClassCleanup(cls.cluster.stop)
        # Nothing in the two addresses says that one process listens on both.
        cls.twin = f'unix:{cls.cluster.sockets}/twin'
        cls.cluster.coordinator.argv += ['--listen', cls.twin]
        cls.cluster.start()
        cls.database = {}
        if UWSGI != DEBIANS_UWSGI:
            # SQLite tells real threads that the database is locked.
            if MariaDb.missing():
                raise unittest.SkipTest(MariaDb.missing())
            server = MariaDb()
            cls.addClassCleanup(server.stop)
            cls.database['database'] = server.url
        cls.data = random.Random(11).randbytes(2 * MIB + 3)

    def setUp(self):
        self.glance = Glance('disk:file', self.sections(), **self.database)
        self.addCleanup(self.glance.stop)

    def sections(self, fast=None):
        return STORES.replace(
            'ENDPOINT', fast or self.cluster.endpoint).replace(
                'TWIN', self.twin).replace(
                    'MOUNT', self.cluster.paths['store-1'])

    def with_stores(self, backends, **endpoints):
        """Another process over the same database, as far as images go."""
        self.glance.kill()
        self.glance.configure(backends, self.sections(**endpoints))
        self.glance.start()

    def copy(self, image, store):
        """How the copy has ended."""
        status, answer = self.glance.call(
            'POST', f'/v2/images/{image}/import',
            {'method': {'name': 'copy-image'}, 'stores': [store]})
        self.assertEqual(202, status, answer)

        def ended():
            tasks = self.glance.call(
                'GET', f'/v2/images/{image}/tasks')[1]['tasks']
            # The image's lock goes after the task's end, and a Glance that is
            # killed in between leaves it.
            return all(task['status'] in ('success', 'failure')
                       for task in tasks) and (
                           'os_glance_import_task' not in
                           self.glance.show(image)) and tasks
        return max(wait_until('the copy has ended', ended, 60),
                   key=lambda task: task['created_at'])['status']

    def assert_kept(self, image):
        status, got = self.glance.download(image)
        self.assertEqual(200, status, self.glance.log()[-3000:])
        self.assertTrue(got == self.data)

    def test_a_process_that_reaches_one_of_them(self):
        """It cannot know that the cluster is another store's; but that the
        image is not its own. (Glance itself does nothing with an image that
        has a location in a store that is not configured.)"""
        self.with_stores('fast:predella, disk:file')
        image = self.glance.create()
        self.assertEqual(204, self.glance.upload(image, self.data))
        self.assertEqual('success', self.copy(image, 'disk'))
        self.with_stores('disk:file, twin:predella, fast:predella',
                         fast=f'unix:{self.cluster.sockets}/gone')
        copied = self.copy(image, 'twin')
        # What a user may do who trusts that there are several copies.
        self.with_stores('fast:predella, twin:predella, disk:file')
        for store in ('disk', 'twin'):
            if store in self.glance.show(image)['stores'].split(','):
                self.assertEqual(204, self.glance.call(
                    'DELETE', f'/v2/stores/{store}/{image}')[0])
        self.assert_kept(image)
        self.assertEqual('failure', copied)
        shown = self.glance.show(image)
        self.assertEqual(('active', 'fast', 'twin', ''), tuple(
            shown[key] for key in ('status', 'stores',
                                   'os_glance_failed_import',
                                   'os_glance_importing_to_stores')))
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{image}')[0])

    def test_a_store_that_is_refused_deletes_nothing(self):
        """Nor does Glance forget an image whose data would be left."""
        self.with_stores('fast:predella, disk:file')
        image = self.glance.create()
        self.assertEqual(204, self.glance.upload(image, self.data))
        for backends, fast in (
                ('fast:predella, twin:predella, disk:file', self.twin),
                ('fast:predella, disk:file',
                 self.cluster.endpoint + '\npredella_write_timeout = 0')):
            self.with_stores(backends, fast=fast)
            self.assertEqual(503, self.glance.download(image)[0])
            self.assertEqual(LATE_DELETE, self.glance.call(
                'DELETE', f'/v2/images/{image}')[0])
            self.assertEqual('active', self.glance.show(image)['status'])
        self.with_stores('fast:predella, disk:file')
        self.assert_kept(image)
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{image}')[0])

    def test_an_image_of_another_cluster_is_not_forgotten(self):
        """As when a store's endpoint was set to the other's by mistake."""
        self.with_stores('twin:predella, disk:file')
        image = self.glance.create()
        self.assertEqual(204, self.glance.upload(image, self.data))
        self.cluster.cli('image', 'rm', image)
        self.with_stores('twin:predella, fast:predella, disk:file')
        self.assertEqual(503, self.glance.download(image)[0])
        self.assertEqual(LATE_DELETE, self.glance.call(
            'DELETE', f'/v2/images/{image}')[0])
        self.assertEqual('active', self.glance.show(image)['status'])
        # One store alone is believed.
        self.with_stores('twin:predella, disk:file')
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{image}')[0])

    def run_tool(self, name, *arguments):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-m',
             'glance_store_predella.command', name, '--config',
             self.glance.config, *arguments], check=True, timeout=60,
            capture_output=True, text=True,
            env={**self.glance.env, 'PREDELLA_PROGRAM': binary('predella'),
                 'PREDELLA_ENDPOINT': self.cluster.endpoint}).stdout

    def test_the_way_out(self):
        """One store's rows become the other's, and it is taken out."""
        self.with_stores('twin:predella, disk:file')
        image = self.glance.create()
        self.assertEqual(204, self.glance.upload(image, self.data))
        self.with_stores('fast:predella, twin:predella, disk:file')
        plan = f'{self.glance.top}/plan'
        self.run_tool('relocate', '--store', 'fast', '--plan', plan)
        self.run_tool('relocate', '--apply', plan, '--yes')
        self.with_stores('fast:predella, disk:file')
        self.assertEqual('fast', self.glance.show(image)['stores'])
        self.assert_kept(image)
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{image}')[0])
        self.assertNotIn(image, self.cluster.cli('image', 'ls').text)

    def test_a_file_that_was_adopted_and_is_still_the_old_stores(self):
        self.with_stores('old:file, fast:predella')
        image = self.glance.create()
        self.assertEqual(204, self.glance.upload(image, self.data))
        self.assertIn(f'{image}: taken in', self.run_tool(
            'adopt', '--settle', '0', self.cluster.paths['store-1']))
        copied = self.copy(image, 'fast')
        if 'fast' in self.glance.show(image)['stores']:
            self.glance.call('DELETE', f'/v2/stores/old/{image}')
        self.assert_kept(image)
        self.assertEqual('failure', copied)
        # As the way in has it.
        plan = f'{self.glance.top}/plan'
        self.run_tool('relocate', '--store', 'fast', '--plan', plan)
        self.run_tool('relocate', '--apply', plan, '--yes')
        self.assertEqual('fast', self.glance.show(image)['stores'])
        self.assert_kept(image)

    def test_a_process_that_knows_both(self):
        """Whichever of them it uses first, and it uses only that one."""
        self.with_stores('fast:predella, disk:file')
        image = self.glance.create()
        self.assertEqual(204, self.glance.upload(image, self.data))
        self.with_stores('twin:predella, fast:predella, disk:file')
        self.assertEqual('failure', self.copy(image, 'twin'))
        for store, status in (('twin', 410), ('fast', 410), ('disk', 204)):
            other = self.glance.create()
            self.assertEqual(status, self.glance.upload(
                other, b'abc', X_Image_Meta_Store=store))
        self.assertIn('twin and fast reach the same cluster',
                      self.glance.log())
        self.assertEqual('fast', self.glance.show(image)['stores'])
        self.assert_kept(image)


if __name__ == '__main__':
    unittest.main()
