"""predella glance audit: what it says of files, of deletes that wait,
and of uploads that nobody goes on with."""
import contextlib
import datetime
import hashlib
import os
import sqlite3
import subprocess
import sys
import unittest
import uuid

import environment  # noqa: F401

from glance_store_predella import files
from glance_store_predella import relocate
from tool_case import FilesCase
from tool_case import KEY
from tool_case import LONG_AGO
from tool_case import NOW


class FilesTest(FilesCase):
    def test_what_is_in_order(self):
        for name in ('old', 'older', 'a'):
            _, path = self.located(name)
            self.write(name, os.path.basename(path))
        self.write('old', 'notes')
        self.image('rbd://somewhere/ID')
        self.image(status='queued', size=None)
        found, err = self.audit(code=0)
        self.assertEqual({}, found)
        self.assertIn('3 files of rows looked at, 0 of these', err)

    def test_sizes(self):
        (short, a), (long, b), (empty, c) = (self.located('old')
                                             for _ in range(3))
        for path, data in ((a, b'ab'), (b, b'abcd'), (c, b'')):
            self.write('old', os.path.basename(path), data)
        found, err = self.audit(code=6)
        self.assertEqual({short: f'{a} 2 3 truncated',
                          long: f'{b} 4 3 grown',
                          empty: f'{c} 0 3 truncated'}, found)
        self.assertIn('next (truncated): put FILE back', err)
        self.assertIn('next (grown): compare head -c', err)
        self.assertNotIn('next (missing)', err)

    def test_missing_and_moved(self):
        missing, a = self.located('old')
        moved, b = self.located('old')
        to = self.write('older', moved)
        # Only the configuration or another row names that directory.
        _, other = self.located('older')
        self.write('older', os.path.basename(other))
        found, err = self.audit(code=6)
        self.assertEqual({missing: f'{a} - 3 missing',
                          moved: f'{b} 3 3 in another directory: {to}'}, found)
        self.assertIn('none of the 2 files that rows name is in '
                      f'{self.paths["old"]}: is its disk mounted?', err)

    def test_directories_of_the_configuration(self):
        conf = os.path.join(self.top, 'conf')
        with open(conf, 'w', encoding='utf-8') as stream:
            stream.write(f'[DEFAULT]\nenabled_backends = x:file, y:rbd, z:file'
                         f'\n[x]\nfilesystem_store_datadirs = '
                         f'{self.paths["old"]}:3\n[z]\n'
                         f'filesystem_store_datadir = {self.paths["older"]}\n'
                         f'[database]\nconnection = {self.url}\n')
        left = [self.write(name, str(uuid.uuid4()), age=LONG_AGO)
                for name in ('old', 'older')]
        code, out, _ = self.run_tool('audit', '--config', conf)
        self.assertEqual(6, code)
        for path in left:
            self.assertRegex(out, f'{path} +3 +- +left behind')

    def test_a_directory_that_is_not_here_is_one_sentence(self):
        for _ in range(3):
            self.image('file:///not/here/ID')
        found, err = self.audit(code=0)
        self.assertEqual({}, found)
        self.assertIn('/not/here is not here: 3 rows', err)

    def test_a_mount_that_hangs_is_not_touched(self):
        image, path = self.located('a')
        identity = relocate.identity
        self.addCleanup(setattr, relocate, 'identity', identity)

        def asked(directory):
            self.assertNotEqual(self.paths['a'], directory)
            return identity(directory)
        relocate.identity = asked
        self.cluster.health = 'HEALTH_HUNG'
        found, err = self.audit(code=0)
        self.assertEqual({}, found)
        self.assertIn('mount a is HUNG: 1 rows name files in '
                      f'{self.paths["a"]} that were not looked at', err)

    def test_where_glance_has_a_mount_elsewhere(self):
        good = self.image('file:///in/the/container/ID')
        bad = self.image('file:///in/the/container/ID')
        path = self.write('a', good)
        found, err = self.audit('--directory', 'a=/in/the/container', code=6)
        self.assertEqual(
            {bad: f'{os.path.dirname(path)}/{bad} - 3 missing'}, found)
        self.assertNotIn('container is not here', err)

    def test_what_can_not_be_read(self):
        image, path = self.located('old')
        os.mkdir(path)
        loop, link = self.located('old')
        os.symlink(loop, link)
        found, _ = self.audit(code=6)
        self.assertIn('no plain file', found[image])
        self.assertIn('not readable: Too many levels', found[loop])

    @unittest.skipUnless(os.geteuid() == 0, 'needs root, to be another user')
    def test_what_glances_user_may_not_read(self):
        image, path = self.located('old')
        self.write('old', image)
        os.chmod(path, 0o600)
        for name in (self.top, self.file):
            os.chmod(name, 0o755)
        os.seteuid(65534)
        try:
            found, _ = self.audit(code=6)
        finally:
            os.seteuid(0)
        self.assertIn('not readable: mode 0600, owner 0:0', found[image])

    def test_a_row_of_another_images_file(self):
        first, path = self.located('old')
        self.write('old', first)
        second = self.image(f'file://{path}')
        by_link, link = self.located('old')
        os.symlink(path, link)
        found, err = self.audit(code=6)
        self.assertEqual(
            {second: f"{path} 3 3 another image's file: image {first}",
             by_link: f"{link} 3 3 another image's file: image {first}"},
            found)
        self.assertIn('delete neither image', err)

    def test_one_file_of_two_images(self):
        first, path = self.located('old')
        self.write('old', first)
        second, link = self.located('old')
        os.link(path, link)
        found, _ = self.audit(code=6)
        self.assertEqual(1, len(found))
        self.assertRegex(''.join(found.values()),
                         'one file of two images: with image '
                         f'({first}|{second})')

    def test_what_a_killed_glance_left(self):
        _, path = self.located('old')
        self.write('old', os.path.basename(path))
        nobody = self.write('old', str(uuid.uuid4()), b'some', age=LONG_AGO)
        saving = self.image(status='saving', size=None)
        self.write('old', saving, age=LONG_AGO)
        young = self.write('old', str(uuid.uuid4()), age=10)
        second, _ = self.located('older')
        self.write('older', second)
        self.write('old', second, age=LONG_AGO)
        found, err = self.audit(code=6)
        self.assertEqual({
            os.path.basename(nobody): f'{nobody} 4 - left behind',
            saving: f'{self.paths["old"]}/{saving} 3 - left behind: the image '
                    'is saving',
            second: f'{self.paths["old"]}/{second} 3 - a second file: Glance '
                    'names another'}, found)
        self.assertNotIn(young, found)
        self.assertIn('openstack image delete IMAGE first', err)

    def test_images_of_predella_are_not_left_behind(self):
        image, _ = self.located('a')
        self.write('a', image)
        ours = self.image(f'predella://fast/ID/{KEY}')
        self.cluster.add(ours, 'a')
        self.write('a', ours, age=LONG_AGO)
        self.assertEqual({}, self.audit(code=0)[0])

    def test_bytes_are_read_only_when_that_is_asked_for(self):
        good, path = self.located('old', md5=hashlib.md5(b'abc').hexdigest())
        bad, _ = self.located('old', md5=hashlib.md5(b'abd').hexdigest())
        for image in (good, bad):
            self.write('old', image)
        before = os.stat(path)
        self.assertEqual({}, self.audit(code=0)[0])
        found, _ = self.audit('--read', code=6)
        self.assertIn('3 3 other bytes: another md5', found[bad])
        self.assertNotIn(good, found)
        after = os.stat(path)
        self.assertEqual((before.st_mtime_ns, before.st_ctime_ns),
                         (after.st_mtime_ns, after.st_ctime_ns))

    def test_a_directory_by_two_spellings(self):
        link = os.path.join(self.top, 'link')
        os.symlink(self.paths['old'], link)
        for value in (f'file://{link}/ID', f'file://{self.paths["old"]}//ID',
                      f'file://{self.paths["old"]}/ID'):
            self.write('old', self.image(value), age=LONG_AGO)
        found, err = self.audit(code=0)
        self.assertEqual({}, found, err)

    def test_an_image_that_was_deleted_meanwhile(self):
        image, _ = self.located('old')
        gone = self.image(f'predella://fast/ID/{KEY}')
        look = files.Looker.look_at_the_rest

        def deleted_then(*arguments):
            for one in (image, gone):
                self.execute('UPDATE images SET deleted = 1 WHERE id = ?', one)
            look(*arguments)
        files.Looker.look_at_the_rest = deleted_then
        self.addCleanup(setattr, files.Looker, 'look_at_the_rest', look)
        self.assertEqual({}, self.audit(code=0)[0])

    def test_an_image_that_came_meanwhile(self):
        new = self.image(f'predella://fast/ID/{KEY}')
        lists = iter(({}, None))
        ours = self.cluster.images

        def later(hashes=True):
            first = next(lists)
            if first is None:
                self.cluster.add(new, 'a', hours=0)
            return ours(hashes) if first is None else first
        self.cluster.images = later
        self.assertEqual({}, self.audit(code=0)[0])


class PendingTest(FilesCase):
    def test_deletes_that_wait_are_no_leaks(self):
        ours = self.image(f'predella://fast/ID/{KEY}')
        self.cluster.add(ours, 'a')
        theirs, path = self.located('old')
        self.write('old', theirs, age=LONG_AGO)
        scrubbed, _ = self.located('old')
        # One location of an image that stays.
        half, _ = self.located('old')
        self.write('old', half)
        self.add_row(half, f'predella://fast/{half}/{KEY}')
        self.execute("UPDATE image_locations SET deleted = 1, status = "
                     "'pending_delete' WHERE value LIKE 'predella://%'")
        self.cluster.add(half, 'a')
        for image in (ours, theirs, scrubbed):
            self.delete_later(image)
        found, err = self.audit(code=0)
        self.assertEqual({}, found)
        self.assertIn("4 images wait for Glance's scrubber", err)
        # Nor is a row of theirs moved.
        self.cluster.add(theirs, 'a')
        _, _, err = self.run_tool(
            'relocate', '--store', 'x', '--to-file', '--plan',
            os.path.join(self.top, 'plan'), '--database', self.url)
        self.assertIn('0 rows to change, 0 left', err)
        # By an export as well.
        _, text, _ = self.run_tool('export', '--database', self.url)
        export = os.path.join(self.top, 'export')
        with open(export, 'w', encoding='utf-8') as stream:
            stream.write(text)
        self.cluster.rows.pop(theirs)
        self.assertEqual(0, self.run_tool('audit', '--export', export)[0])
        # When the scrubber is done they are.
        self.execute("UPDATE images SET status = 'deleted' WHERE id = ?", ours)
        code, out, _ = self.run_tool('audit', '--database', self.url)
        self.assertEqual(6, code)
        self.assertIn(ours, out)

    def test_an_encrypted_location_is_no_leak(self):
        self.cluster.add(self.image('bm90IGEgVVJM'), 'a')
        _, err = self.audit(code=0)
        self.assertIn('1 locations are encrypted', err)


class UploadsTest(FilesCase):
    def upload(self, image, hours):
        heard = NOW - datetime.timedelta(hours=hours)
        self.cluster.open_uploads.append({
            'name': f'uploads/{uuid.uuid4()}', 'image': f'images/{image}',
            'target': {'mount': 'mounts/a'},
            'liveTime': heard.strftime('%Y-%m-%dT%H:%M:%S.5Z'),
            'expireTime': (heard + datetime.timedelta(hours=24)).strftime(
                '%Y-%m-%dT%H:%M:%SZ')})

    def test_uploads_that_nobody_goes_on_with(self):
        saving = self.image(status='saving', size=None)
        gone = str(uuid.uuid4())
        self.upload(saving, 5)
        self.upload(gone, 0.1)
        busy = self.image(status='saving', size=None)
        self.upload(busy, 0)
        code, out, err = self.run_tool('audit', '--database', self.url)
        # They end by themselves.
        self.assertEqual(0, code)
        self.assertIn('2 uploads that nobody goes on with', err)
        self.assertRegex(out, f'{saving} .* saving\n')
        self.assertRegex(out, f'{gone} .* not there\n')
        ends = self.cluster.open_uploads[0]['expireTime']
        self.assertIn(ends, out)
        self.assertNotIn(busy, out)

    def test_an_upload_that_may_be_going_on_is_not_to_be_aborted(self):
        """--older-than 0 asks for all data, also what was written just now."""
        busy = self.image(status='saving', size=None)
        self.upload(busy, 0)
        arguments = ('audit', '--database', self.url, '--older-than', '0')
        _, out, err = self.run_tool(*arguments)
        self.assertRegex(out, f'{busy} .* saving\n')
        self.assertIn('1 uploads that were heard of in the last 300 s: they '
                      'may be going on', err)
        self.assertNotIn('nobody goes on with', err)
        self.assertNotIn('abort', err)
        self.upload(self.image(status='saving', size=None), 5)
        _, _, err = self.run_tool(*arguments)
        self.assertIn('1 uploads that were heard of in the last 300 s', err)
        self.assertIn('1 uploads that nobody goes on with', err)
        self.assertIn('predella upload abort', err)


class ManyTest(FilesCase):
    def test_memory(self):
        """A hundred thousand images cost some hundred bytes each."""
        count = 100_000
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            for i in range(count):
                image = str(uuid.UUID(int=i))
                db.execute('INSERT INTO images VALUES (?,?,?,?,?,?,?,?,0,0)',
                           (image, f'image {i}', 'owner', 'active', 3,
                            f'{i:032x}', 'sha512', f'{i:0128x}'))
                db.execute('INSERT INTO image_locations '
                           '(image_id, value, meta_data) VALUES (?,?,?)',
                           (image, f'file:///not/here/{image}',
                            '{"store": "old"}'))
            db.commit()
        script = f'''
import resource, sys
sys.path[:0] = {environment.paths.INSTALLED + [environment.HERE]!r}
from glance_store_predella import audit, files, glance_db
from glance_store_predella import other_clusters, relocate
source = glance_db.Database({self.url!r})
places = relocate.Places({{}}, [])
next(iter(source.each()))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
look = files.Looker(places, {{}})
compared = audit.Audit(places, {{}}, other_clusters.OtherClusters(), look)
compared.compare(source.each())
assert look.not_here == {{'/not/here': {count}}}, look.not_here
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
'''
        done = subprocess.run([sys.executable, '-c', script], check=True,
                              capture_output=True, text=True)
        used = int(done.stdout) * 1024 / count
        self.assertLess(used, 500, 'bytes an image')


if __name__ == '__main__':
    unittest.main()
