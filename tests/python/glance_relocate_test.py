"""predella glance relocate: rows there and back."""
import contextlib
import json
import os
import sqlite3
import uuid

import environment  # noqa: F401

from glance_store_predella import glance_db
from glance_store_predella import plans
from tool_case import KEY
from tool_case import ToolCase


class RelocateTest(ToolCase):
    def plan(self, *more, store='fast', code=0):
        path = os.path.join(self.top, f'plan-{uuid.uuid4()}')
        done, out, err = self.run_tool(
            'relocate', '--store', store, '--plan', path, '--database',
            self.url, *more)
        self.assertEqual(code, done, err)
        return path, out, err

    def apply(self, how, path, *more):
        return self.run_tool('relocate', how, path, '--database', self.url,
                             *more)

    def test_there_and_back(self):
        image = self.image(f'file://{self.paths["a"]}/ID', md5='m')
        legacy = self.image(f'filesystem://{self.paths["b"]}/ID',
                            meta='{"store": "old", "more": [1]}')
        other = self.image('rbd://x/ID')
        self.cluster.add(image, 'a', hashes={'md5': 'm', 'sha512': 's'})
        self.cluster.add(legacy, 'b')
        before = self.rows()
        plan, out, err = self.plan()
        self.assertEqual(before, self.rows(), 'a plan changes nothing')
        self.assertIn('2 rows to change, 0 left', err)
        self.assertIn(f'next: predella glance relocate --apply {plan}', err)
        self.assertNotIn(KEY, out)
        self.assertEqual(2, self.apply('--apply', plan)[0])
        self.assertEqual(before, self.rows(), 'without --yes neither')
        code, out, _ = self.apply('--apply', plan, '--yes')
        self.assertEqual((0, '2 rows changed, 0 were changed already\n'),
                         (code, out))
        self.assertEqual({
            image: (f'predella://fast/{image}/{KEY}', {'store': 'fast'}),
            legacy: (f'predella://fast/{legacy}/{KEY}',
                     {'store': 'fast', 'more': [1]}),
            other: before[other]}, self.rows())
        # Again, as after a break.
        self.assertIn('0 rows changed, 2 were', self.apply(
            '--apply', plan, '--yes')[1])
        # By the plan itself, and anew by what the cluster knows.
        self.assertEqual(0, self.apply('--undo', plan, '--yes')[0])
        self.assertEqual(before, self.rows())
        self.apply('--apply', plan, '--yes')
        back, _, _ = self.plan('--to-file', store='old')
        self.assertEqual(0, self.apply('--apply', back, '--yes')[0])
        self.assertEqual(
            {**before, legacy: (f'file://{self.paths["b"]}/{legacy}',
                                {'store': 'old', 'more': [1]})}, self.rows())

    # What Glance, and others, wrote before there were stores.
    OLD_METADATA = [None, 'null', '{}', '', '{"a":1,  "b": "x"}']

    def texts(self):
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            return db.execute('SELECT id, value, meta_data '
                              'FROM image_locations').fetchall()

    def relocate_with_metadata(self, metadata):
        """(the rows before, the plan that was applied to them)."""
        for meta in metadata:
            self.cluster.add(self.image(f'file://{self.paths["a"]}/ID',
                                        meta=meta), 'a')
        before = self.texts()
        plan, _, _ = self.plan()
        self.assertEqual(0, self.apply('--apply', plan, '--yes')[0])
        self.assertEqual({'fast'}, {json.loads(meta)['store']
                                    for _, _, meta in self.texts()})
        return before, plan

    def test_metadata_comes_back_as_it_was(self):
        before, plan = self.relocate_with_metadata(
            [*self.OLD_METADATA, '{"b": "\\u00e9"}'])
        self.assertEqual(0, self.apply('--undo', plan, '--yes')[0])
        self.assertEqual(before, self.texts())

    def test_metadata_comes_back_by_statements(self):
        before, plan = self.relocate_with_metadata(self.OLD_METADATA)
        code, out, _ = self.apply('--undo', plan, '--sql')
        self.assertEqual(0, code)
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.executescript(out)
        self.assertEqual(before, self.texts())

    def test_rows_of_another_store_of_the_cluster(self):
        """As the way out for who had two, or has renamed one."""
        here = self.image(f'predella://fast/ID/{KEY}', meta='{"store":"fast"}')
        twin = self.image(f'predella://twin/ID/{KEY}', meta='{"store":"twin"}')
        elsewhere = self.image(f'predella://far/ID/{KEY}')
        replaced = self.image(f'predella://twin/ID/{"f" * 32}')
        both = self.image(f'predella://fast/ID/{KEY}')
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute('INSERT INTO image_locations (image_id, value, '
                       'meta_data) VALUES (?, ?, ?)',
                       (both, f'predella://twin/{both}/{KEY}', '{}'))
            db.commit()
        for image in (here, twin, replaced, both):
            self.cluster.add(image, 'a')
        before = self.live()
        plan, out, err = self.plan()
        self.assertIn('2 rows to change, 0 left', err)
        self.assertRegex(out, f'{both} +6 .*the row goes')
        self.assertNotIn(KEY, out)
        self.assertEqual(0, self.apply('--apply', plan, '--yes')[0])
        self.assertEqual({
            **before, both: [f'predella://fast/{both}/{KEY}'],
            twin: [f'predella://fast/{twin}/{KEY}']}, self.live())
        self.assertEqual({'store': 'fast'}, self.rows()[twin][1])
        self.assertEqual([f'predella://far/{elsewhere}/{KEY}'],
                         self.live()[elsewhere])
        self.assertEqual(0, self.apply('--undo', plan, '--yes')[0])
        self.assertEqual(before, self.live())

    def live(self):
        """{image: its locations}"""
        found = {}
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            for image, value in db.execute(
                    'SELECT image_id, value FROM image_locations '
                    'WHERE NOT deleted ORDER BY id'):
                found.setdefault(image, []).append(value)
        return found

    def test_what_is_left(self):
        def add(why, adopted=True, **more):
            image = self.image(f'file://{self.paths["a"]}/ID', **more)
            if adopted:
                self.cluster.add(image, 'a', hashes={'md5': 'm'})
            return image, why
        left = dict([
            add('not adopted', adopted=False),
            add('status is saving', status='saving'),
            add('4 bytes in Glance, 3 here', size=4),
            add('another md5', md5='n')])
        damaged, why = add('it is DEGRADED')
        self.cluster.rows[damaged]['health'] = 'IMAGE_HEALTH_DEGRADED'
        left[damaged] = why
        encrypted = self.image('bm90IGEgVVJM')
        left[encrypted] = 'encrypted'
        elsewhere = self.image(f'file://{self.paths["a"]}/ID')
        self.cluster.add(elsewhere, 'b')
        left[elsewhere] = 'not adopted'
        plan, _, err = self.plan()
        self.assertIn('0 rows to change, 7 left', err)
        self.assertNotIn('next:', err)
        for image, why in left.items():
            self.assertRegex(err, f'left as it is: {image}: .*{why}')
        self.assertEqual([], plans.read_plan(plan))

    def test_what_is_not_whole_does_not_go_out(self):
        """Glance's own store would serve damage as whole."""
        def add(mounts):
            image = self.image(f'predella://fast/ID/{KEY}')
            self.cluster.add(image, mounts)
            return image
        left = {}
        for mount, fault, said in (
                ('a', 'DAMAGED', 'its copy on a is DAMAGED .block 0 differs'),
                ('a', 'MISSING', 'its copy on a is MISSING'),
                ('a', 'HEALTH_HUNG', 'its copy is on a, which is HUNG')):
            image = add('a')
            self.cluster.fault(image, mount, fault, 'block 0 differs')
            left[image] = said
        lost = add('a')
        self.cluster.rows[lost]['health'] = 'IMAGE_HEALTH_LOST'
        left[lost] = 'it is LOST'
        # Of two copies the row names the one that is whole.
        second = add('a,b')
        self.cluster.fault(second, 'a', 'DAMAGED')
        # Unless it names the other one already.
        row = add('a,b')
        self.cluster.fault(row, 'a', 'DAMAGED')
        self.execute('INSERT INTO image_locations (image_id, value, meta_data)'
                     ' VALUES (?, ?, ?)', row,
                     f'file://{self.paths["a"]}/{row}', '{"store": "old"}')
        left[row] = 'its row 7 names a copy that is not to be read'
        plan, _, err = self.plan('--to-file', store='old')
        self.assertEqual([f'file://{self.paths["b"]}/{second}'],
                         [one['new'] for one in plans.read_plan(plan)])
        self.assertIn(f'1 rows to change, {len(left)} left', err)
        for image, said in left.items():
            self.assertRegex(err, f'left as it is: {image}: .*{said}')
        self.assertNotIn('stores-delete', err)

    def test_a_row_that_changed_meanwhile_is_left(self):
        image = self.image(f'file://{self.paths["a"]}/ID')
        gone = self.image(f'file://{self.paths["a"]}/ID')
        for one in (image, gone):
            self.cluster.add(one, 'a')
        plan, _, _ = self.plan()
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute('UPDATE image_locations SET value = ? WHERE '
                       'image_id = ?', ('file:///new', image))
            db.execute('UPDATE image_locations SET deleted = 1 WHERE '
                       'image_id = ?', (gone,))
            db.commit()
        before = self.rows()
        code, out, err = self.apply('--apply', plan, '--yes')
        self.assertEqual(1, code)
        self.assertIn('0 rows changed', out)
        self.assertIn(image, err)
        self.assertIn(gone, err)
        self.assertEqual(before, self.rows())

    def execute(self, statement, *values):
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute(statement, values)
            db.commit()

    def test_metadata_that_changed_meanwhile_is_kept(self):
        """By the program and by the statements, there and back."""
        images = [self.image(f'file://{self.paths["a"]}/ID', meta=meta)
                  for meta in ('{"store": "old"}', None)]
        for one in images:
            self.cluster.add(one, 'a')
        plan, _, _ = self.plan()
        for how in ('--apply', '--undo'):
            if how == '--undo':
                # As the plan saw them, then as it has them.
                self.execute('UPDATE image_locations SET meta_data = '
                             """CASE id WHEN 1 THEN '{"store": "old"}' END""")
                self.assertEqual(0, self.apply('--apply', plan, '--yes')[0])
            self.execute('UPDATE image_locations SET meta_data = ?',
                         '{"store": "old", "note": "new"}')
            before = self.texts()
            _, statements, _ = self.apply(how, plan, '--sql')
            with contextlib.closing(sqlite3.connect(self.file)) as db:
                db.executescript(statements)
            self.assertEqual(before, self.texts())
            code, out, err = self.apply(how, plan, '--yes')
            self.assertEqual(1, code)
            self.assertIn('0 rows changed, 0 were', out)
            for one in images:
                self.assertRegex(err, f'left as it is: {one}: row . is not as '
                                 'the plan saw it')
            self.assertEqual(before, self.texts())

    def test_metadata_that_changes_while_a_plan_is_applied(self):
        """Between the look at all rows and the change of this one."""
        image = self.image(f'file://{self.paths["a"]}/ID')
        self.cluster.add(image, 'a')
        plan, _, _ = self.plan()
        database = glance_db.Database(self.url)
        each = database.each

        def then_changed():
            yield from each()
            self.execute('UPDATE image_locations SET meta_data = ?',
                         '{"store": "old", "note": "new"}')
        database.each = then_changed
        changes = plans.read_plan(plan)
        before = self.rows()[image][0]
        changed, there, others = plans.apply_plan(database, changes)
        self.assertEqual((0, 0), (changed, there))
        self.assertEqual([image], [one['image'] for one in others])
        self.assertEqual((before, {'store': 'old', 'note': 'new'}),
                         self.rows()[image])

    def test_statements_do_the_same(self):
        image = self.image(f'file://{self.paths["a"]}/ID',
                           meta='{"store": "old", "who": "O\'Neill"}')
        self.cluster.add(image, 'a')
        _, out, _ = self.plan('--sql')
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.executescript(out)
        self.assertEqual({image: (f'predella://fast/{image}/{KEY}',
                                  {'store': 'fast', 'who': "O'Neill"})},
                         self.rows())

    def test_options_that_are_not_for_one_another(self):
        """None of them is passed over in silence."""
        image = self.image(f'file://{self.paths["a"]}/ID')
        self.cluster.add(image, 'a')
        plan, _, _ = self.plan()
        other, _, _ = self.plan()
        before = self.rows()
        new = os.path.join(self.top, 'new')
        for arguments, said in (
                (('--apply', plan, '--undo', other, '--yes'), 'say one of'),
                (('--apply', plan, '--store', 'x', '--plan', new, '--yes'),
                 '--store, --plan: for making a plan, and --apply'),
                (('--undo', plan, '--to-file', '--yes'), '--to-file: for'),
                (('--apply', plan, '--directory', 'a=/x', '--yes'),
                 '--directory: for'),
                (('--apply', plan, '--export', new, '--yes'),
                 '--export: for'),
                (('--store', 'x', '--plan', new, '--yes'), '--yes is for'),
                (('--apply', plan, '--sql', '--yes'), '--sql prints'),
                (('--store', 'x'), 'relocate makes a plan'),
                ((), 'relocate makes a plan')):
            code, out, err = self.run_tool('relocate', '--database', self.url,
                                           *arguments)
            self.assertEqual((2, ''), (code, out), arguments)
            self.assertIn(said, err)
            self.assertFalse(os.path.exists(new), arguments)
            self.assertEqual(before, self.rows(), arguments)

    def test_a_plan_is_never_written_over(self):
        path, _, _ = self.plan()
        self.assertEqual(0o600, os.stat(path).st_mode & 0o777, 'it has keys')
        code, _, err = self.run_tool('relocate', '--store', 'x', '--plan',
                                     path, '--database', self.url)
        self.assertEqual(1, code)
        self.assertIn('exists', err)
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write('{"predella_relocation": 2, "changes": []}')
        self.assertEqual(1, self.apply('--apply', path, '--yes')[0])

    def test_where_glance_has_a_mount_elsewhere(self):
        image = self.image('file:///var/lib/glance/images/ID')
        self.cluster.add(image, 'a')
        plan, _, _ = self.plan('--directory', 'a=/var/lib/glance/images')
        self.assertEqual([image], [one['image']
                                   for one in plans.read_plan(plan)])
        self.assertEqual(1, self.run_tool(
            'relocate', '--store', 'x', '--plan', '/nowhere/x', '--database',
            self.url, '--directory', 'z=/x')[0])

    def test_a_directory_that_glance_knows_by_a_link(self):
        link = os.path.join(self.top, 'link')
        os.symlink(self.paths['a'], link)
        image = self.image(f'file://{link}/ID')
        host = self.image(f'file://localhost{self.paths["a"]}/ID')
        for one in (image, host):
            self.cluster.add(one, 'a')
            self.write('a', one)
        plan, _, err = self.plan()
        self.assertEqual({image, host},
                         {one['image'] for one in plans.read_plan(plan)})
        self.assertIn('2 rows to change, 0 left', err)
        # Nor would one be called a leak.
        self.assertEqual(0, self.run_tool('audit', '--database', self.url)[0])

    def test_rows_of_directories_that_are_no_mounts_are_named(self):
        image = self.image('file:///forgotten/ID')
        _, _, err = self.plan()
        self.assertIn('0 rows to change, 1 left', err)
        self.assertRegex(err, f'{image}: /forgotten is no mount')
        # The cluster has that image: it may be the same one by another path.
        self.cluster.add(image, 'a')
        self.assertEqual(0, self.run_tool('audit', '--database', self.url)[0])

    def test_many_rows(self):
        for _ in range(2 * plans.BATCH + 1):
            self.cluster.add(self.image(f'file://{self.paths["a"]}/ID'), 'a')
        plan, _, _ = self.plan()
        self.assertIn(f'{2 * plans.BATCH + 1} rows changed', self.apply(
            '--apply', plan, '--yes')[1])


if __name__ == '__main__':
    unittest.main()
