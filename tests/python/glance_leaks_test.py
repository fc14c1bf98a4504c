"""What predella glance audit says of a real Glance: files of its own store,
deletes that wait for the scrubber, an upload whose Glance was killed, and an
image that has two rows."""
import contextlib
import http.client
import os
import sqlite3
import threading
import unittest

from glance_move_test import MIB
from glance_move_test import MoveCase
from glance_move_test import NEW
from real_glance import USER
from cluster import Cluster
from cluster import wait_until


class LeaksTest(MoveCase):
    more = ('delayed_delete = True\n'
            'enabled_import_methods = [copy-image,glance-direct]')

    def setUp(self):
        super().setUp()
        self.start_cluster()
        self.again('old:file, fast:predella', self.old + NEW.replace(
            'ENDPOINT', self.cluster.endpoint))
        self.config = ('--config', self.glance.config)

    def audit(self, code=0):
        return self.predella('glance', 'audit', '--older-than', '0',
                             *self.config, code=code)

    def test_files_of_the_old_store(self):
        good, short, gone, moved = (self.upload(MIB + i, f'image {i}')
                                    for i in range(4))
        self.assertEqual(204, self.glance.upload(
            self.glance.create(), b'ours', X_Image_Meta_Store='fast'))
        self.assertEqual('', self.audit().text)
        path = {name: os.path.join(directory, name)
                for directory in self.directories
                for name in os.listdir(directory)}
        os.truncate(path[short], MIB)
        os.remove(path[gone])
        away, = set(self.directories) - {os.path.dirname(path[moved])}
        os.rename(path[moved], os.path.join(away, moved))
        said = self.audit(code=6)
        self.assertRegex(said.text, f'{short} .* {MIB} +{MIB + 1} +truncated')
        self.assertRegex(said.text, f'{gone} .* - +{MIB + 2} +missing')
        self.assertRegex(said.text,
                         f'{moved} .* in another directory: {away}/{moved}')
        self.assertNotIn(good, said.text)
        # What it says helps.
        os.rename(os.path.join(away, moved), path[moved])
        self.assertNotIn(moved, self.audit(code=6).text)

    def test_deletes_that_wait_for_the_scrubber(self):
        old = self.upload(7, 'old')
        new = self.glance.create('new')
        self.assertEqual(204, self.glance.upload(new, b'1234567',
                                                 X_Image_Meta_Store='fast'))
        for image in (old, new):
            self.assertEqual(204, self.glance.call(
                'DELETE', f'/v2/images/{image}')[0])
        self.assertEqual([new], list(self.in_cluster()))
        self.assertIn(old, self.inodes())
        said = self.audit()
        self.assertEqual('', said.text)
        self.assertIn('2 images wait for Glance', said.err)

    def test_an_upload_whose_glance_was_killed(self):
        image = self.glance.create()
        connection = http.client.HTTPConnection('127.0.0.1', self.glance.port)

        def data():
            for _ in range(80):  # uWSGI takes no chunks of a MiB
                yield bytes(MIB // 4)
            wait_until('Glance is killed', lambda:
                       self.glance.process.poll() is not None, 30)

        def send():
            try:
                connection.request(
                    'PUT', f'/v2/images/{image}/file', data(),
                    {**USER, 'Content-Type': 'application/octet-stream',
                     'X-Image-Meta-Store': 'fast',
                     'Transfer-Encoding': 'chunked'}, encode_chunked=True)
            except OSError:
                pass  # it was killed
        thread = threading.Thread(target=send)
        thread.start()
        wait_until('it is in flight', lambda: any(
            self.cluster.inflight(name) for name in self.cluster.paths))
        self.glance.kill()
        thread.join()
        connection.close()
        said = self.audit()
        # A moment ago: nobody knows yet that it does not go on.
        self.assertIn('1 uploads that were heard of in the last 300 s: they '
                      'may be going on', said.err)
        self.assertNotIn('abort', said.err)
        self.assertRegex(said.text, f'{image} .* saving\n')
        upload = said.text.splitlines()[-1].split()[1]
        self.predella('upload', 'abort', upload)
        self.assertEqual('', self.audit().text)

    def add_row_of_before(self, image):
        """As copy-image of an adopted image once made it, without a copy."""
        row = self.cluster.cli('image', 'stat', image, '-o', 'json').json
        with contextlib.closing(sqlite3.connect(os.path.join(
                self.glance.top, 'glance.sqlite'), timeout=30)) as db:
            db.execute(
                'INSERT INTO image_locations (image_id, value, meta_data, '
                'created_at, updated_at, deleted, status) SELECT image_id, ?, '
                "?, created_at, updated_at, 0, 'active' FROM image_locations "
                'WHERE image_id = ?',
                (f'predella://fast/{image}/{row["locationKey"]}',
                 '{"store": "fast"}', image))
            db.commit()

    def sent_twice(self, data):
        """What newer Glances make of an upload that they refuse as of another
        format, and that is then sent again: they kept its row."""
        image = self.glance.call('POST', '/v2/images', {
            'name': 'x', 'disk_format': 'qcow2',
            'container_format': 'bare'})[1]['id']

        def send():
            return self.glance.upload(image, data, X_Image_Meta_Store='fast')
        status = send()
        if status == 204:
            self.add_row_of_before(image)
            return image
        self.assertEqual(415, status)
        # Whatever else is sent: the first data is there.
        self.assertEqual(500, self.glance.upload(
            image, data + b'x', X_Image_Meta_Store='fast'))
        self.assertEqual('queued', self.glance.show(image)['status'])
        self.assertEqual(200, self.glance.patch(image, [{
            'op': 'replace', 'path': '/disk_format', 'value': 'raw'}]))
        self.assertEqual(204, send())
        return image

    def test_an_image_that_has_one_row_twice(self):
        data = os.urandom(MIB)
        image = self.sent_twice(data)
        self.assertEqual('fast,fast', self.glance.show(image)['stores'])
        said = self.audit(code=6)
        self.assertRegex(said.text, f'{image} .* are one copy')
        self.assertIn('predella glance relocate --store ID', said.err)
        plan = os.path.join(self.top, 'plan')
        self.predella('glance', 'relocate', '--store', 'fast', '--plan', plan,
                      *self.config)
        self.predella('glance', 'relocate', '--apply', plan, '--yes',
                      *self.config)
        self.assertEqual('', self.audit().text)
        self.assertEqual('fast', self.glance.show(image)['stores'])
        status, got = self.glance.download(image)
        self.assertEqual(200, status)
        self.assertTrue(got == data)

    def test_an_image_by_two_rows(self):
        image = self.upload(2 * MIB, 'twice')
        self.predella('adopt', *self.directories, *self.config, '--settle',
                      '0')
        self.add_row_of_before(image)
        self.assertEqual({'old', 'fast'}, set(
            self.glance.show(image)['stores'].split(',')))
        self.assertRegex(self.audit(code=6).text,
                         f'{image} .* one file by two rows')
        plan = os.path.join(self.top, 'plan')
        self.predella('glance', 'relocate', '--store', 'fast', '--plan', plan,
                      *self.config)
        self.predella('glance', 'relocate', '--apply', plan, '--yes',
                      *self.config)
        self.assert_served('fast')
        self.assertEqual('', self.audit().text)
        self.predella('glance', 'relocate', '--undo', plan, '--yes',
                      *self.config)
        # Out: the other row goes.
        plan = os.path.join(self.top, 'back')
        self.predella('glance', 'relocate', '--to-file', '--store', 'old',
                      '--plan', plan, *self.config)
        self.predella('glance', 'relocate', '--apply', plan, '--yes',
                      *self.config)
        self.assert_served('old')

    def test_a_copy_in_each_store(self):
        image = self.upload(MIB, 'copied')
        self.assertEqual(202, self.glance.call(
            'POST', f'/v2/images/{image}/import', {
                'method': {'name': 'copy-image'}, 'stores': ['fast']})[0])
        wait_until('it has two rows', lambda: set(self.glance.show(
            image)['stores'].split(',')) == {'old', 'fast'}, 60)
        said = self.audit()
        self.assertEqual('', said.text)
        back = self.predella('glance', 'relocate', '--to-file', '--store',
                             'old', '--plan', os.path.join(self.top, 'x'),
                             *self.config)
        self.assertIn('0 rows to change, 1 left', back.err)
        self.assertIn('store old has a copy of its own', back.err)

    def test_a_store_of_another_cluster(self):
        second = Cluster((100,))
        self.addCleanup(second.stop)
        second.start()
        ours = NEW.replace('ENDPOINT', self.cluster.endpoint)
        self.again('old:file, fast:predella, second:predella', self.old + ours +
                   f'[second]\npredella_endpoint = {second.endpoint}\n')
        copied = self.upload(MIB, 'copied')
        self.assertEqual(202, self.glance.call(
            'POST', f'/v2/images/{copied}/import', {
                'method': {'name': 'copy-image'}, 'stores': ['second']})[0])
        wait_until('it has two rows', lambda: set(self.glance.show(
            copied)['stores'].split(',')) == {'old', 'second'}, 60)
        self.assertEqual(204, self.glance.upload(
            self.glance.create(), b'there', X_Image_Meta_Store='second'))
        self.predella('adopt', *self.directories, *self.config, '--settle', '0')
        said = '2 images have a row of store second, which is of another cluster'
        # There and back, and nothing is left.
        for to, store in (((), 'fast'), (('--to-file',), 'old')):
            audit = self.audit()
            self.assertEqual('', audit.text)
            self.assertIn(said, audit.err)
            plan = os.path.join(self.top, f'to-{store}')
            planned = self.predella('glance', 'relocate', *to, '--store', store,
                                    '--plan', plan, *self.config)
            self.assertIn('1 rows to change, 0 left', planned.err)
            self.assertIn(said, planned.err)
            self.predella('glance', 'relocate', '--apply', plan, '--yes',
                          *self.config)
            self.assertEqual({store, 'second'}, set(
                self.glance.show(copied)['stores'].split(',')))
            self.assertEqual(self.images[copied],
                             self.glance.download(copied)[1])


if __name__ == '__main__':
    unittest.main()
