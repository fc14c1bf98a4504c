"""Images by two rows: of two stores, or of one file."""
import contextlib
import json
import os
import sqlite3
import uuid

import environment  # noqa: F401

from glance_store_predella import files
from glance_store_predella import plans
from tool_case import FilesCase
from tool_case import KEY
from tool_case import LONG_AGO


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
                         [one['new'] for one in plans.read_plan(plan)])
        for how, rows in (('--apply', wanted), ('--undo', before)):
            self.assertEqual(0, self.run_tool(
                'relocate', how, plan, '--yes', '--database', self.url)[0])
            self.assertEqual(rows, self.live(image))
        self.run_tool('relocate', '--apply', plan, '--yes', '--database',
                      self.url)
        self.assertEqual({}, self.audit(code=0)[0])

    def test_a_row_that_names_an_adopted_file_by_a_link_of_it(self):
        """The link is in a directory of its own, which is no mount."""
        for first in ('a', 'older'):
            image = str(uuid.uuid4())
            path = self.write('a', image, age=LONG_AGO)
            between = os.path.join(self.paths['old'], 'between')
            link = os.path.join(self.paths['older'], image)
            os.symlink(path, between)
            os.symlink('../old/between', link)
            self.image(f'file://{self.paths[first]}/ID', image=image)
            self.add_row(image, f'file://{link if first == "a" else path}',
                         'second')
            self.cluster.add(image, 'a')
            before = self.live(image)
            found, _ = self.audit(code=6)
            self.assertIn('one file by two rows: row', found[image])
            plan, err = self.plan(store='fast')
            self.assertIn('2 rows to change, 0 left', err)
            wanted = [f'predella://fast/{image}/{KEY}']
            for how, rows in (('--apply', wanted), ('--undo', before),
                              ('--apply', wanted)):
                self.assertEqual(0, self.run_tool(
                    'relocate', how, plan, '--yes', '--database', self.url)[0])
                self.assertEqual(rows, self.live(image))
            self.assertEqual({}, self.audit(code=0)[0])
            # The link's row beside a predella:// one, as it once was left.
            self.add_row(image, f'file://{link}', 'second')
            found, err = self.audit(code=6)
            self.assertEqual({image: f'{link} 3 3 one file by two rows'}, found)
            # Whichever way, one of the two rows goes.
            for more, rows in (((), wanted),
                               (('--to-file',), [f'file://{link}'])):
                plan, err = self.plan(*more, store='old' if more else 'fast')
                self.assertIn('1 rows to change, 0 left', err)
                for how, now in (('--apply', rows),
                                 ('--undo', [*wanted, f'file://{link}'])):
                    self.run_tool('relocate', how, plan, '--yes', '--database',
                                  self.url)
                    self.assertEqual(now, self.live(image))
            self.execute('DELETE FROM images')
            self.execute('DELETE FROM image_locations')
            self.cluster.rows.clear()
            for one in (between, path):
                os.remove(one)

    def test_a_link_to_another_file_is_another_file(self):
        image, path = self.located('a')
        self.write('a', image)
        self.cluster.add(image, 'a')
        link = os.path.join(self.paths['older'], image)
        os.symlink(self.write('a', str(uuid.uuid4())), link)
        self.add_row(image, f'file://{link}', 'older')
        loop = self.image(f'file://{self.paths["older"]}/ID')
        os.symlink(loop, os.path.join(self.paths['older'], loop))
        self.cluster.add(loop, 'a')
        _, err = self.plan(store='fast')
        self.assertIn('1 rows to change, 2 left', err)
        for one in (image, loop):
            self.assertIn(f'{one}: {self.paths["older"]} is no mount', err)

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
                         [one['new'] for one in plans.read_plan(plan)])

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


if __name__ == '__main__':
    unittest.main()
