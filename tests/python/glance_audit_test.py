"""predella glance audit: what it says of files, of deletes that wait, of rows
for two stores, and of uploads that nobody goes on with."""
import contextlib
import datetime
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import unittest
import uuid

import environment  # noqa: F401

from glance_store_predella import cluster as clusters
from glance_store_predella import files
from glance_store_predella import relocate
from glance_tool_test import KEY
from glance_tool_test import NOW
from glance_tool_test import ToolCase

LONG_AGO = 100_000


class FilesCase(ToolCase):
    def setUp(self):
        super().setUp()
        # Of Glance alone, no mount of ours.
        for name in ('old', 'older'):
            self.paths[name] = os.path.join(self.top, name)
            os.mkdir(self.paths[name])
        self.cluster.paths = {name: self.paths[name] for name in ('a', 'b')}

    def located(self, directory, **more):
        """An image of 3 bytes by its row, and the file's path."""
        image = self.image(f'file://{self.paths[directory]}/ID', **more)
        return image, os.path.join(self.paths[directory], image)

    def execute(self, statement, *values):
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute(statement, values)
            db.commit()

    def add_row(self, image, value, store='fast'):
        self.execute('INSERT INTO image_locations (image_id, value, meta_data)'
                     ' VALUES (?,?,?)', image, value,
                     json.dumps({'store': store}))

    def delete_later(self, image):
        """As Glance with delayed_delete does it."""
        self.execute("UPDATE images SET deleted = 1, status = 'pending_delete'"
                     ' WHERE id = ?', image)
        self.execute("UPDATE image_locations SET deleted = 1, status = "
                     "'pending_delete' WHERE image_id = ?", image)

    def audit(self, *more, code=None):
        """{image: words of its line in the table of files}, complaints."""
        done, out, err = self.run_tool('audit', '--database', self.url, *more)
        if code is not None:
            self.assertEqual(code, done, out + err)
        table = out.partition('FILE')[2].splitlines()[1:]
        return {line.split()[0]: ' '.join(line.split()[1:])
                for line in table}, err


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


class BothTest(FilesCase):
    """Images in Glance's own store and in Predella."""

    def both(self, file_in, mount):
        image, path = self.located(file_in, md5='m')
        self.write(file_in, image, age=LONG_AGO)
        self.cluster.add(image, mount, hashes={'md5': 'm'})
        self.add_row(image, f'predella://fast/{image}/{KEY}')
        return image, path

    def plan(self, *more, store):
        path = os.path.join(self.top, f'plan-{uuid.uuid4()}')
        code, _, err = self.run_tool('relocate', '--store', store, '--plan',
                                     path, '--database', self.url, *more)
        self.assertEqual(0, code, err)
        return path, err

    def live(self, image):
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            return [value for value, in db.execute(
                'SELECT value FROM image_locations WHERE image_id = ? AND '
                'NOT deleted ORDER BY id', (image,))]

    def test_two_copies_are_as_they_should_be(self):
        self.both('old', 'a')
        self.assertEqual({}, self.audit(code=0)[0])

    def test_one_file_by_two_rows_is_named(self):
        image, path = self.both('a', 'a')
        found, err = self.audit(code=6)
        self.assertEqual({image: f'{path} 3 3 one file by two rows'}, found)
        self.assertIn('leaves one of the rows of an adopted file', err)

    def test_the_second_row_of_one_file_goes_and_comes_back(self):
        image, path = self.both('a', 'a')
        before = self.live(image)
        plan, err = self.plan(store='fast')
        self.assertIn('1 rows to change, 0 left', err)
        for _ in range(2):
            self.assertEqual(0, self.run_tool(
                'relocate', '--apply', plan, '--yes', '--database',
                self.url)[0])
            self.assertEqual([f'predella://fast/{image}/{KEY}'],
                             self.live(image))
        self.assertEqual(0, self.run_tool(
            'relocate', '--undo', plan, '--yes', '--database', self.url)[0])
        self.assertEqual(before, self.live(image))
        # On the way out it is the other one.
        plan, _ = self.plan('--to-file', store='old')
        for how in ('--apply', '--undo'):
            _, statements, _ = self.run_tool('relocate', how, plan, '--sql')
            with contextlib.closing(sqlite3.connect(self.file)) as db:
                db.executescript(statements)
            self.assertEqual([f'file://{path}'] if how == '--apply'
                             else before, self.live(image))

    def test_rows_of_two_stores_of_one_cluster(self):
        """As two stores made them once, with and without the old row."""
        files = {}
        for file_in in ('a', 'old'):
            image, path = self.both(file_in, 'a')
            self.add_row(image, f'predella://twin/{image}/{KEY}', 'twin')
            files[image] = f'file://{path}'
        alone = self.image(f'predella://twin/ID/{KEY}', meta='{"store":"twin"}')
        self.cluster.add(alone, 'a')
        self.add_row(alone, f'predella://fast/{alone}/{KEY}')
        before = {image: self.live(image) for image in (*files, alone)}
        adopted, copied = files
        self.audit(code=6)
        ours = {image: f'predella://fast/{image}/{KEY}' for image in before}
        for more, wanted in (
                # A copy of its own stays one, until stores-delete removes it.
                ((), {adopted: [ours[adopted]], alone: [ours[alone]],
                      copied: [files[copied], ours[copied]]}),
                (('--to-file',), {
                    adopted: [files[adopted]],
                    alone: [f'file://{self.paths["a"]}/{alone}'],
                    copied: [files[copied], ours[copied]]})):
            plan, _ = self.plan(*more, store='old' if more else 'fast')
            for how, rows in (('--apply', wanted), ('--undo', before)):
                self.assertEqual(0, self.run_tool(
                    'relocate', how, plan, '--yes', '--database',
                    self.url)[0])
                self.assertEqual(rows, {image: self.live(image)
                                        for image in before})

    def by_link(self, adopted=True):
        """An image by two rows of Glance's own, a directory and a link."""
        link = os.path.join(self.top, 'link')
        os.symlink(self.paths['a'], link)
        image, path = self.located('a')
        self.write('a', image, age=LONG_AGO)
        if adopted:
            self.cluster.add(image, 'a')
        self.add_row(image, f'file://{link}/{image}', 'older')
        return image, path

    def test_two_rows_of_one_file_by_a_link_become_one(self):
        image, path = self.by_link()
        found, err = self.audit(code=6)
        self.assertEqual({image: f'{path} 3 3 one file by two rows: row 1 '
                          'names it too'}, found)
        before = self.live(image)
        plan, err = self.plan(store='fast')
        self.assertIn('2 rows to change, 0 left', err)
        wanted = [f'predella://fast/{image}/{KEY}']
        self.assertEqual([*wanted, None],
                         [one['new'] for one in relocate.read_plan(plan)])
        for how, rows in (('--apply', wanted), ('--undo', before)):
            self.assertEqual(0, self.run_tool(
                'relocate', how, plan, '--yes', '--database', self.url)[0])
            self.assertEqual(rows, self.live(image))
        self.run_tool('relocate', '--apply', plan, '--yes', '--database',
                      self.url)
        self.assertEqual({}, self.audit(code=0)[0])

    def test_two_rows_of_a_file_that_nobody_adopted_are_named(self):
        image, path = self.by_link(adopted=False)
        self.assertEqual({image}, set(self.audit(code=6)[0]))
        # A link in place of the file, in another directory, is the same.
        other, path = self.located('old')
        self.write('old', other, age=LONG_AGO)
        os.symlink(path, os.path.join(self.paths['older'], other))
        self.add_row(other, f'file://{self.paths["older"]}/{other}', 'older')
        # A file of its own is a second copy, as copy-image makes it.
        copied, _ = self.located('old')
        self.write('old', copied)
        self.write('older', copied)
        self.add_row(copied, f'file://{self.paths["older"]}/{copied}', 'older')
        self.assertEqual({image, other}, set(self.audit(code=6)[0]))

    def run_plan(self, how, plan, sql):
        """Exit code and complaints; of the statements none."""
        code, out, err = self.run_tool(
            'relocate', how, plan, '--sql' if sql else '--yes', '--database',
            self.url)
        if sql:
            with contextlib.closing(sqlite3.connect(self.file)) as db:
                db.executescript(out)
        return code, err

    def test_a_row_is_not_put_back_without_its_data(self):
        """The row that was kept for it was removed, and the data with it."""
        for sql in (False, True):
            for to_file in (False, True):
                image, path = self.both('a' if to_file else 'old', 'a')
                self.add_row(image, f'predella://twin/{image}/{KEY}', 'twin')
                self.add_row(image, f'predella://more/{image}/{KEY}', 'more')
                self.add_row(image, f'rbd://pool/{image}', 'far')
                plan, err = (self.plan('--to-file', store='old') if to_file
                             else self.plan(store='fast'))
                self.assertIn(f'{2 + to_file} rows to change', err)
                self.assertEqual(0, self.run_plan('--apply', plan, sql)[0])
                kept = (f'file://{path}' if to_file else
                        f'predella://fast/{image}/{KEY}')
                # As DELETE /v2/stores/STORE/IMAGE does it.
                self.execute("UPDATE image_locations SET deleted = 1, status "
                             "= 'deleted' WHERE value = ?", kept)
                rest = self.live(image)
                self.assertEqual(1 if to_file else 2, len(rest))
                code, err = self.run_plan('--undo', plan, sql)
                self.assertEqual(rest, self.live(image))
                if not sql:
                    self.assertEqual(1, code)
                    self.assertRegex(err, f'left as it is: {image}: row .*, '
                                     'or row .*, which is of the same data')
                self.execute('DELETE FROM images')
                self.execute('DELETE FROM image_locations')

    def test_a_row_stays_where_the_other_one_is_another(self):
        """Changed by hand since the plan, to data that is elsewhere."""
        for sql in (False, True):
            image, path = self.both('a', 'a')
            plan, _ = self.plan(store='fast')
            self.execute('UPDATE image_locations SET value = ? WHERE value '
                         'LIKE ?', f'rbd://pool/{image}', 'predella://%')
            before = self.live(image)
            code, err = self.run_plan('--apply', plan, sql)
            self.assertEqual(before, self.live(image))
            self.assertEqual(0 if sql else 1, code)

    def test_rows_of_two_stores_where_the_kept_one_changes(self):
        """Whichever of a plan's rows is changed first."""
        for sql in (False, True):
            image = self.image(f'predella://twin/ID/{KEY}')
            self.cluster.add(image, 'a')
            self.add_row(image, f'predella://more/{image}/{KEY}', 'more')
            before = self.live(image)
            for more, store, wanted in (
                    ((), 'fast', f'predella://fast/{image}/{KEY}'),
                    (('--to-file',), 'old', f'file://{self.paths["a"]}/'
                     f'{image}')):
                plan, _ = self.plan(*more, store=store)
                for how, rows in (('--apply', [wanted]), ('--undo', before)):
                    self.assertEqual(0, self.run_plan(how, plan, sql)[0])
                    self.assertEqual(rows, self.live(image))

    def test_a_copy_in_each_of_two_mounts(self):
        """As copy-image makes them of two stores of type file."""
        image, path = self.located('a')
        second = self.write('b', image)
        self.write('a', image)
        self.add_row(image, f'file://{second}', 'older')
        arguments = ['--database', self.url, '--settle', '0']
        for how, names in ((['--dry-run'], 'ba'), (['--dry-run'], 'ab'),
                           ([], 'ab')):
            code, out, err = self.run_tool(
                'adopt', *(self.paths[name] for name in names), *arguments,
                *how)
            self.assertEqual(0, code, out + err)
            # The one whose directory was named first.
            one, other = (path, second)[::1 if names == 'ab' else -1]
            self.assertRegex(out, f'{one} +3 +image')
            self.assertRegex(out, f'{other} +3 +twice +a second copy: {one} '
                             'is taken in')
        self.assertEqual([('a', path)], [(mount, file) for mount, _, file, *_
                                         in self.cluster.adopted])
        self.cluster.add(image, 'a')
        _, out, _ = self.run_tool('adopt', self.paths['b'], *arguments)
        self.assertRegex(out, f'{second} +3 +twice +a second copy: the cluster '
                         'has it on a')
        plan, err = self.plan(store='fast')
        self.assertIn('1 rows to change, 1 left', err)
        said = (f'left as it is: {image}: it is in Predella besides, on a, '
                f'and {second} is a second copy: glance stores-delete --store '
                f'older {image} removes that one')
        self.assertIn(said, err)
        self.run_tool('relocate', '--apply', plan, '--yes', '--database',
                      self.url)
        self.assertIn(said, self.plan(store='fast')[1])

    def test_the_other_copy_where_one_can_not_be_taken_in(self):
        image, path = self.located('a')
        self.write('a', image, b'ab')
        second = self.write('b', image)
        self.add_row(image, f'file://{second}', 'older')
        _, out, _ = self.run_tool(
            'adopt', self.paths['a'], self.paths['b'], '--database', self.url,
            '--settle', '0', '--dry-run')
        self.assertRegex(out, f'{path} +2 +partial')
        self.assertRegex(out, f'{second} +3 +image')

    def test_two_plans_do_not_take_both_rows(self):
        image, path = self.both('a', 'a')
        plans = [self.plan(store='fast')[0],
                 self.plan('--to-file', store='old')[0]]
        for plan, code, said in zip(plans, (0, 1), ('1 rows', '0 rows')):
            got, out, err = self.run_tool('relocate', '--apply', plan, '--yes',
                                          '--database', self.url)
            self.assertEqual(code, got, err)
            self.assertIn(f'{said} changed', out)
            self.assertEqual([f'predella://fast/{image}/{KEY}'],
                             self.live(image))
        self.assertIn(f'left as it is: {image}', err)

    def test_two_copies_are_left(self):
        image, path = self.both('old', 'a')
        _, err = self.plan('--to-file', store='old')
        self.assertIn('0 rows to change, 1 left', err)
        self.assertIn(f'store old has a copy of its own, {path}: glance '
                      f'stores-delete --store fast {image}', err)
        # To a store of another name it is one more copy, as it was.
        plan, err = self.plan('--to-file', store='other')
        self.assertEqual([f'file://{self.paths["a"]}/{image}'],
                         [one['new'] for one in relocate.read_plan(plan)])

    def test_a_second_copy_in_a_mount_is_not_to_be_adopted(self):
        image, path = self.both('a', 'b')
        _, err = self.plan(store='fast')
        self.assertIn('0 rows to change, 1 left', err)
        self.assertIn(f'{path} is a second copy: glance stores-delete --store '
                      f'old {image}', err)
        self.assertNotIn('not adopted', err)

    def test_an_export_has_both(self):
        image, _ = self.both('old', 'a')
        _, text, _ = self.run_tool('export', '--database', self.url)
        one, = json.loads(text)['images']
        self.assertEqual(self.live(image),
                         [row['value'] for row in one['locations']])


class ListTest(unittest.TestCase):
    def test_a_list_is_taken_apart_as_it_comes(self):
        rows = [{'name': f'images/{i}', 'x': '{"],' * i} for i in range(50)]
        for indent in (None, 1):
            text = json.dumps({'images': rows, 'unreachable': ['x']},
                              indent=indent)
            stream = io.StringIO(text)
            stream.read = lambda _, read=stream.read: read(7)
            self.assertEqual(rows, list(clusters.elements(stream, 'images')))
        self.assertEqual([], list(clusters.elements(
            io.StringIO('{"images": []}'), 'images')))
        for text in ('', '{"images": [{"a": 1}', '{"mounts": []}'):
            with self.assertRaises(ValueError):
                list(clusters.elements(io.StringIO(text), 'images'))


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
from glance_store_predella import audit, files, glance_db, relocate
source = glance_db.Database({self.url!r})
places = relocate.Places({{}}, [])
next(iter(source.each()))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
look = files.Looker(places, {{}})
compared = audit.Audit(places, {{}}, look)
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
