"""Images with several location rows, moved in under a real glance-api that goes
on changing and deleting meanwhile."""
import contextlib
import json
import os
import sqlite3
import unittest

from glance_move_test import MIB
from glance_move_test import MoveCase
from glance_move_test import NEW
from cluster import wait_until

STORES = '''
[old]
filesystem_store_datadir = DIR/store-1
[older]
filesystem_store_datadir = DIR/store-2
[disk]
filesystem_store_datadir = {top}/disk
'''


class RowsTest(MoveCase):
    def setUp(self):
        super().setUp()
        self.files = STORES.replace('DIR', self.top)
        self.again('old:file, older:file, disk:file', self.files)
        self.image = self.upload(MIB, 'one')
        self.config = ('--config', self.glance.config)

    def copy(self, store):
        self.assertEqual(202, self.glance.call(
            'POST', f'/v2/images/{self.image}/import',
            {'method': {'name': 'copy-image'}, 'stores': [store]})[0])
        # The task writes the image's rows until its end.
        wait_until('it is copied', lambda: all(
            task['status'] == 'success' for task in self.glance.call(
                'GET', f'/v2/images/{self.image}/tasks')[1]['tasks']), 60)
        self.assertIn(store, self.stores())

    def stores(self):
        return set(self.glance.show(self.image)['stores'].split(','))

    def delete_from(self, store):
        return self.glance.call('DELETE',
                                f'/v2/stores/{store}/{self.image}')[0]

    def with_predella(self):
        new = NEW.replace('ENDPOINT', self.cluster.endpoint)
        self.again('fast:predella, twin:predella, old:file, older:file, '
                   'disk:file', self.files + new + '[twin]\n'
                   'predella_endpoint = unix:/nowhere\n')

    def adopt(self, *names):
        return self.predella('adopt', *(
            os.path.join(self.top, name) for name in names), *self.config,
            '--settle', '0')

    def relocate(self, plan, *arguments, code=0):
        return self.predella('glance', 'relocate', *arguments,
                             os.path.join(self.top, plan), *self.config,
                             code=code)

    def row(self, store):
        """The first row's value, once more, in another store."""
        with contextlib.closing(sqlite3.connect(
                f'{self.glance.top}/glance.sqlite')) as db:
            value, = db.execute(
                'SELECT value FROM image_locations WHERE image_id = ? AND NOT '
                'deleted ORDER BY id', (self.image,)).fetchone()
            scheme = value.partition('://')[0]
            if scheme == 'predella':
                value = value.replace('//fast/', f'//{store}/')
            else:
                value = value.replace('/store-1/', '/link/')
            db.execute(
                'INSERT INTO image_locations (image_id, value, meta_data, '
                'created_at, updated_at, deleted, status) VALUES (?, ?, ?, '
                "datetime('now'), datetime('now'), 0, 'active')",
                (self.image, value, json.dumps({'store': store})))
            db.commit()

    def assert_image(self, stores):
        self.assertEqual(stores, self.stores())
        status, got = self.glance.download(self.image)
        self.assertEqual(200, status, self.glance.log()[-3000:])
        self.assertTrue(got == self.images[self.image])

    def test_a_copy_in_each_of_two_directories(self):
        self.copy('older')
        self.start_cluster()
        adopted = self.adopt('store-1', 'store-2')
        self.assertIn('1 twice', adopted.err)
        self.assertIn('1 taken in, 0 not', adopted.err)
        self.with_predella()
        said = self.relocate('plan', '--store', 'fast', '--plan').err
        self.assertIn('1 rows to change, 1 left', said)
        self.assertIn(f'glance stores-delete --store older {self.image}', said)
        # Glance saves the image, and its locations with it.
        self.assertEqual(200, self.glance.patch(
            self.image, [{'op': 'add', 'path': '/note', 'value': 'x'}]))
        self.relocate('plan', '--yes', '--apply')
        self.assert_image({'fast', 'older'})
        self.assertEqual(200, self.glance.patch(
            self.image, [{'op': 'replace', 'path': '/note', 'value': 'y'}]))
        self.relocate('plan', '--yes', '--undo')
        self.assert_image({'old', 'older'})
        self.relocate('plan', '--yes', '--apply')
        self.assertEqual(204, self.delete_from('older'))
        self.assert_image({'fast'})

    def test_rows_of_one_directory_by_a_link(self):
        os.symlink(os.path.join(self.top, 'store-1'),
                   os.path.join(self.top, 'link'))
        self.row('older')
        self.copy('disk')
        self.start_cluster()
        self.assertIn('1 taken in, 0 not', self.adopt('store-1').err)
        self.assertIn('one file by two rows', self.predella(
            'glance', 'audit', *self.config, code=6).text)
        self.with_predella()
        self.assertIn('2 rows to change', self.relocate(
            'plan', '--store', 'fast', '--plan').err)
        self.relocate('plan', '--yes', '--apply')
        self.predella('glance', 'audit', *self.config)
        self.assert_image({'fast', 'disk'})
        # The data goes with the row that was kept.
        self.assertEqual(204, self.delete_from('fast'))
        self.assertIn(f'left as it is: {self.image}', self.relocate(
            'plan', '--yes', '--undo', code=1).err)
        self.assert_image({'disk'})

    def test_undo_after_the_data_was_removed(self):
        self.start_cluster()
        self.with_predella()
        self.image = self.upload(MIB + 1, 'of predella')
        self.copy('disk')
        self.row('twin')
        self.row('old')
        self.assertIn('2 rows to change', self.relocate(
            'plan', '--store', 'fast', '--plan').err)
        self.relocate('plan', '--yes', '--apply')
        self.assert_image({'fast', 'disk'})
        self.assertEqual(204, self.delete_from('fast'))
        self.assertIn('0 rows changed', self.relocate(
            'plan', '--yes', '--undo', code=1).text)
        self.assert_image({'disk'})


if __name__ == '__main__':
    unittest.main()
