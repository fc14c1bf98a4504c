"""predella-glance: its judgement, on a fake cluster and a database in SQLite."""
import contextlib
import datetime
import io
import json
import os
import shutil
import sqlite3
import tempfile
import time
import unittest
import uuid

import environment  # noqa: F401

from glance_store_predella import adopt
from glance_store_predella import cluster as clusters
from glance_store_predella import command
from glance_store_predella import datadirs
from glance_store_predella import glance_db
from glance_store_predella import relocate
from glance_store_predella.cluster import Failed

SCHEMA = '''
CREATE TABLE images (id TEXT PRIMARY KEY, name TEXT, owner TEXT, status TEXT,
  size INTEGER, checksum TEXT, os_hash_algo TEXT, os_hash_value TEXT,
  os_hidden BOOLEAN NOT NULL DEFAULT 0,
  deleted BOOLEAN NOT NULL DEFAULT 0);
CREATE TABLE image_locations (id INTEGER PRIMARY KEY, image_id TEXT,
  value TEXT, meta_data TEXT, deleted BOOLEAN NOT NULL DEFAULT 0,
  status TEXT NOT NULL DEFAULT 'active', deleted_at TEXT);
'''
KEY = '0123456789abcdef0123456789abcdef'
NOW = datetime.datetime.now(datetime.timezone.utc)


class FakeCluster:
    """In the place of the program: mounts, images, and what was adopted."""

    def __init__(self, paths):
        self.paths = paths
        self.rows = {}
        self.adopted = []
        self.open_uploads = []
        self.listed_again = 0
        self.health = 'HEALTH_ONLINE'

    def mounts(self):
        return {name: {'name': f'mounts/{name}', 'path': path,
                       'health': self.health,
                       'adminState': 'ADMIN_STATE_ACTIVE'}
                for name, path in self.paths.items()}

    def images(self, hashes=True):
        return {name: clusters.Image.of(row, hashes)
                for name, row in self.rows.items()}

    def uploads(self):
        return self.open_uploads

    def orphans(self):
        return {}

    def list_again(self):
        self.listed_again += 1

    def impact(self, names):
        images = [{'name': f'images/{name}', 'sizeBytes': row['sizeBytes'],
                   'otherReadableCopies': 0}
                  for name, row in self.rows.items()
                  if set(names) & set(clusters.Image.of(row).mounts)]
        return {'imageCount': str(len(images)), 'imageBytes': '7',
                'onlyCopyCount': str(len(images)), 'images': images}

    def adopt(self, mount, image, path, size, hashes):
        self.adopted.append((mount, image, path, size, hashes))
        return 'it is another' if hashes.get('md5') == 'bad' else None

    def add(self, image, mount, size=3, hashes=None, hours=5):
        made = NOW - datetime.timedelta(hours=hours)
        self.rows[image] = {
            'name': f'images/{image}', 'sizeBytes': str(size),
            'locationKey': KEY, 'health': 'IMAGE_HEALTH_HEALTHY',
            'createTime': made.strftime('%Y-%m-%dT%H:%M:%S.123456Z'),
            'hashes': [{'algorithm': a, 'hex': h}
                       for a, h in (hashes or {}).items()],
            'copies': [{'mount': f'mounts/{mount}'}]}


class ToolCase(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix='pr-tool-')
        self.addCleanup(shutil.rmtree, self.top)
        self.paths = {}
        for name in ('a', 'b'):
            self.paths[name] = os.path.join(self.top, name)
            os.mkdir(self.paths[name])
        self.cluster = FakeCluster(self.paths)
        original = clusters.Cluster
        clusters.Cluster = lambda endpoint: self.cluster
        self.addCleanup(setattr, clusters, 'Cluster', original)
        self.file = os.path.join(self.top, 'glance.sqlite')
        self.url = f'sqlite:///{self.file}'
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.executescript(SCHEMA)

    def write(self, mount, name, data=b'abc', age=1000):
        """A file that has not changed for a while, and its path."""
        path = os.path.join(self.paths[mount], name)
        with open(path, 'wb') as stream:
            stream.write(data)
        os.utime(path, (time.time() - age,) * 2)
        return path

    def image(self, location=None, size=3, status='active', md5=None,
              name='n', owner='o', image=None, meta='{"store": "old"}',
              hidden=False):
        image = image or str(uuid.uuid4())
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute('INSERT INTO images VALUES (?,?,?,?,?,?,?,?,?,0)',
                       (image, name, owner, status, size, md5, 'sha512',
                        None, hidden))
            if location is not None:
                db.execute('INSERT INTO image_locations '
                           '(image_id, value, meta_data) VALUES (?,?,?)',
                           (image, location.replace('ID', image), meta))
            db.commit()
        return image

    def rows(self):
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            return {image: (value, json.loads(meta)) for image, value, meta
                    in db.execute('SELECT image_id, value, meta_data '
                                  'FROM image_locations')}

    def run_tool(self, *arguments):
        """(exit code, output, complaints)."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command.main([*arguments])
        return code, out.getvalue(), err.getvalue()


class AdoptTest(ToolCase):
    def look(self, glance=True, paths=None, directories=()):
        images = None
        if glance:
            args = command._parser().parse_args(
                ['export', '--database', self.url])
            images = command._database(args).images()
        # The change time of files can not be set, so the clock is.
        mounts, _ = adopt.mounts_at(self.cluster,
                                    paths or list(self.paths.values()))
        files = adopt.look(self.cluster, mounts, images, 300, directories,
                           lambda: time.time() + 1000)
        return {os.path.relpath(one.path, self.top): one.kind
                for one in files}

    def test_what_is_not_an_image(self):
        image = str(uuid.uuid4())
        self.write('a', 'notes')
        self.write('a', image.upper())
        os.mkdir(os.path.join(self.paths['a'], str(uuid.uuid4())))
        os.symlink('/etc/passwd',
                   os.path.join(self.paths['a'], str(uuid.uuid4())))
        os.mkdir(os.path.join(self.paths['a'], '.predella'))
        self.assertEqual([adopt.STRANGER] * 4,
                         list(self.look(glance=False).values()))

    def test_what_changed_lately_is_left(self):
        image = str(uuid.uuid4())
        self.write('a', image)
        mounts, _ = adopt.mounts_at(self.cluster, [self.paths['a']])
        files = adopt.look(self.cluster, mounts, None, 300)
        self.assertEqual([adopt.CHANGING], [one.kind for one in files])
        self.assertEqual({f'a/{image}': adopt.TAKE}, self.look(glance=False))

    def test_what_glance_says(self):
        images = {
            adopt.TAKE: self.image(f'file://{self.paths["a"]}/ID'),
            adopt.PARTIAL: self.image(f'file://{self.paths["a"]}/ID', size=4),
            adopt.CONFLICT: self.image('file:///elsewhere/ID'),
            adopt.UNKNOWN: str(uuid.uuid4()),
        }
        for image in images.values():
            self.write('a', image)
        self.assertEqual({f'a/{image}': kind
                          for kind, image in images.items()}, self.look())
        # Its data is elsewhere, and nobody would refer to this.
        other = self.image('rbd://x/ID')
        self.write('b', other)
        self.assertEqual(adopt.CONFLICT, self.look()[f'b/{other}'])
        saving = self.image(size=None, status='saving')
        self.write('b', saving)
        self.assertEqual(adopt.PARTIAL, self.look()[f'b/{saving}'])

    def test_one_id_in_two_directories(self):
        image = self.image(f'file://{self.paths["b"]}/ID')
        self.write('a', image)
        self.write('b', image)
        self.assertEqual({f'a/{image}': adopt.TWICE, f'b/{image}': adopt.TAKE},
                         self.look())
        # Without Glance nobody knows which.
        self.assertEqual({adopt.TWICE}, set(self.look(glance=False).values()))

    def test_what_an_agent_would_refuse(self):
        linked, closed, plain, read_only = (
            str(uuid.uuid4()) for _ in range(4))
        os.link(self.write('a', linked), os.path.join(self.top, 'other'))
        os.chmod(self.write('a', closed), 0o000)
        self.write('a', plain)
        os.chmod(self.write('a', read_only), 0o444)
        wanted = {f'a/{linked}': adopt.LINKED, f'a/{plain}': adopt.TAKE,
                  f'a/{read_only}': adopt.TAKE}
        found = self.look(glance=False)
        # To root nothing is closed.
        self.assertEqual(adopt.TAKE if os.geteuid() == 0 else
                         adopt.UNREADABLE, found.pop(f'a/{closed}'))
        self.assertEqual(wanted, found)

    @unittest.skipUnless(os.geteuid() == 0, 'needs root, to give files away')
    def test_what_the_agents_user_may_read(self):
        """Whose the label is where no agent is here to be asked."""
        user, group = 64061, 64062
        own = os.path.join(self.paths['a'], '.predella')
        os.mkdir(own)
        os.chown(own, user, group)
        for mode, owner, kind in (
                (0o400, (user, 0), adopt.TAKE),
                (0o040, (user, group), adopt.UNREADABLE),
                (0o640, (0, group), adopt.TAKE),
                (0o604, (0, group), adopt.UNREADABLE),
                (0o600, (0, 0), adopt.UNREADABLE),
                (0o444, (0, 0), adopt.TAKE)):
            path = self.write('a', str(uuid.uuid4()))
            os.chown(path, *owner)
            os.chmod(path, mode)
            name = os.path.relpath(path, self.top)
            self.assertEqual(kind, self.look(glance=False)[name],
                             f'{mode:o} {owner}')

    def test_one_directory_by_several_paths(self):
        link = os.path.join(self.top, 'link')
        os.symlink(self.paths['a'], link)
        image = self.image(f'file://{link}/ID')
        self.write('a', image)
        names = (self.paths['a'], link, self.paths['a'] + '/')
        code, out, err = self.run_tool(
            'adopt', *names, '--dry-run', '--settle', '0', '--database',
            self.url)
        self.assertEqual(0, code)
        self.assertEqual(1, out.count(image))
        self.assertRegex(out, f'{image} +3 +image')
        for name in names[1:]:
            self.assertIn(f'{name} is the same directory as {names[0]}', err)

    def test_where_glance_has_a_mount_elsewhere(self):
        image = self.image('file:///var/lib/glance/images/ID')
        self.write('a', image)
        self.assertEqual({f'a/{image}': adopt.CONFLICT}, self.look())
        self.assertEqual({f'a/{image}': adopt.TAKE}, self.look(
            directories=['a=/var/lib/glance/images']))
        self.assertEqual({f'a/{image}': adopt.CONFLICT}, self.look(
            directories=['b=/var/lib/glance/images']))

    def test_what_the_cluster_has(self):
        here, elsewhere = str(uuid.uuid4()), str(uuid.uuid4())
        self.write('a', here)
        self.write('a', elsewhere)
        self.cluster.add(here, 'a')
        self.cluster.add(elsewhere, 'b')
        self.assertEqual({f'a/{here}': adopt.ALREADY,
                          f'a/{elsewhere}': adopt.CONFLICT},
                         self.look(glance=False))

    def test_only_directories_of_mounts_that_are_well(self):
        with self.assertRaisesRegex(Failed, 'mount init --with-images'):
            self.look(paths=[self.top])
        self.cluster.health = 'HEALTH_HUNG'
        with self.assertRaisesRegex(Failed, 'HUNG'):
            self.look()

    def test_command(self):
        good = self.image(f'file://{self.paths["a"]}/ID', md5='good')
        bad = self.image(f'file://{self.paths["a"]}/ID', md5='bad')
        for image in (good, bad):
            self.write('a', image)
        arguments = ('adopt', self.paths['a'], '--database', self.url,
                     '--settle', '0')
        code, out, _ = self.run_tool(*arguments, '--dry-run')
        self.assertEqual(0, code)
        self.assertIn(good, out)
        self.assertEqual([], self.cluster.adopted)
        code, out, err = self.run_tool(*arguments)
        self.assertEqual(1, code)
        self.assertIn(f'{bad}: it is another', out)
        self.assertIn('1 taken in, 1 not', err)
        self.assertEqual(1, self.cluster.listed_again)
        self.assertIn(('a', good, os.path.join(self.paths['a'], good), 3,
                       {'md5': 'good'}), self.cluster.adopted)


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
        self.assertEqual([], relocate.read_plan(plan))

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
        changes = relocate.read_plan(plan)
        before = self.rows()[image][0]
        changed, there, others = relocate.apply_plan(database, changes)
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
                                   for one in relocate.read_plan(plan)])
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
                         {one['image'] for one in relocate.read_plan(plan)})
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
        for _ in range(2 * relocate.BATCH + 1):
            self.cluster.add(self.image(f'file://{self.paths["a"]}/ID'), 'a')
        plan, _, _ = self.plan()
        self.assertIn(f'{2 * relocate.BATCH + 1} rows changed', self.apply(
            '--apply', plan, '--yes')[1])


class AuditTest(ToolCase):
    def test_leaks_and_missing_data(self):
        good = self.image(f'predella://fast/ID/{KEY}')
        adopted = self.image(f'file://{self.paths["b"]}/ID')
        lost = self.image(f'predella://fast/ID/{KEY}', name='lost one')
        nowhere = self.image(f'predella://fast/ID/{KEY}', owner='someone')
        other = self.image(f'predella://fast/ID/{"f" * 32}')
        leak, young = str(uuid.uuid4()), str(uuid.uuid4())
        self.cluster.add(good, 'a')
        self.cluster.add(adopted, 'b')
        self.cluster.add(lost, 'a')
        self.cluster.rows[lost]['health'] = 'IMAGE_HEALTH_LOST'
        self.cluster.add(other, 'a')
        self.cluster.add(leak, 'a')
        self.cluster.add(young, 'a', hours=0)
        code, out, err = self.run_tool('audit', '--database', self.url)
        self.assertEqual(6, code)
        self.assertIn('2 images that no row', err)
        self.assertIn('3 rows of Glance', err)
        leaks, missing = out.split('STATUS')
        self.assertEqual({leak, other},
                         {one for one in self.cluster.rows if one in leaks})
        for image in (lost, nowhere, other):
            self.assertIn(image, missing)
        self.assertIn('lost one', missing)
        self.assertIn('someone', missing)

    def test_one_copy_in_two_rows(self):
        """As two stores of one cluster made them once."""
        image = self.image(f'predella://fast/ID/{KEY}')
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute('INSERT INTO image_locations (image_id, value, '
                       'meta_data) VALUES (?, ?, ?)',
                       (image, f'predella://twin/{image}/{KEY}', '{}'))
            db.commit()
        self.cluster.add(image, 'a')
        code, out, err = self.run_tool('audit', '--database', self.url)
        self.assertEqual(6, code)
        self.assertIn('0 images that no row', err)
        self.assertIn('rows 1 and 2 of image_locations are one copy', out)
        # What it says next helps.
        self.assertIn('next (one copy): predella glance relocate', err)
        plan = os.path.join(self.top, 'plan')
        for arguments in (('--store', 'fast', '--plan', plan),
                          ('--apply', plan, '--yes')):
            self.assertEqual(0, self.run_tool(
                'relocate', *arguments, '--database', self.url)[0])
        self.assertEqual((0, ''), self.run_tool(
            'audit', '--database', self.url)[:2])

    def test_nothing_to_say(self):
        self.cluster.add(self.image(f'predella://fast/ID/{KEY}'), 'a')
        code, out, _ = self.run_tool('audit', '--database', self.url)
        self.assertEqual((0, ''), (code, out))

    def test_impact_names_images_and_owners(self):
        image = self.image(name='web\x1b[31m', owner='project-7')
        unknown = str(uuid.uuid4())
        self.cluster.add(image, 'a')
        self.cluster.add(unknown, 'a')
        self.cluster.add(self.image(name='not there'), 'b')
        code, out, _ = self.run_tool('impact', 'a', '--database', self.url)
        self.assertEqual(0, code)
        self.assertIn('on a: 2 images', out)
        line, = (one for one in out.splitlines() if image in one)
        self.assertEqual(['active', 'project-7', 'web?[31m'],
                         line.split()[-3:])
        self.assertRegex(out, f'{unknown} .* not in Glance')
        self.assertNotIn('not there', out)

    def test_hidden_images_are_named(self):
        hidden = self.image(name='old', owner='p', hidden=True)
        shown = self.image(name='new', owner='p')
        for image in (hidden, shown):
            self.cluster.add(image, 'a')
        said = f'{hidden} .*  active, hidden  p +old\n'
        code, out, err = self.run_tool('impact', 'a', '--database', self.url)
        self.assertEqual((0, ''), (code, err))
        self.assertRegex(out, said)
        self.assertRegex(out, f'{shown} .*  active +p +new\n')
        paths = []
        for name, lists in (
                ('export', self.run_tool('export', '--database', self.url)[1]),
                ('listed', [{'id': shown, 'name': 'new', 'owner': 'p',
                             'status': 'active', 'os_hidden': False}]),
                ('more', [{'id': hidden, 'name': 'old', 'owner': 'p',
                           'status': 'active', 'os_hidden': True}])):
            paths.append(os.path.join(self.top, name))
            with open(paths[-1], 'w', encoding='utf-8') as stream:
                stream.write(lists if isinstance(lists, str) else
                             json.dumps({'images': lists}))
        export, listed, more = paths
        for files in ((export,), (listed, more)):
            code, out, err = self.run_tool(
                'impact', 'a', *(f'--export={path}' for path in files))
            self.assertEqual((0, ''), (code, err))
            self.assertRegex(out, said)
        _, out, err = self.run_tool('impact', 'a', '--export', listed)
        self.assertRegex(out, f'{hidden} .* not in Glance')
        self.assertIn('os_hidden=true', err)

    def test_from_files_instead_of_the_database(self):
        image = self.image(f'predella://fast/ID/{KEY}', name='x', owner='p',
                           md5='m')
        self.cluster.add(image, 'a')
        code, out, _ = self.run_tool('export', '--database', self.url)
        self.assertEqual(0, code)
        path = os.path.join(self.top, 'export')
        listing = [{'ID': image, 'Name': 'x', 'Project': 'p',
                    'Status': 'active', 'Size': 3, 'Checksum': 'm'}]
        answer = {'images': [{'id': image, 'name': 'x', 'owner': 'p',
                              'status': 'active', 'size': 3}]}
        for text in (out, json.dumps(listing), json.dumps(answer)):
            with open(path, 'w', encoding='utf-8') as stream:
                stream.write(text)
            self.assertRegex(self.run_tool('impact', 'a', '--export', path)[1],
                             f'{image} .* active +p +x')
            # What has no locations says nothing of them.
            self.assertEqual(0 if text is out else 1, self.run_tool(
                'audit', '--export', path)[0])
        # Locations as the API shows them say nothing of rows; and one page is
        # no list.
        shown = {**answer['images'][0], 'locations': [
            {'url': 'file:///x', 'metadata': {}}]}
        before = {**answer['images'][0], 'locations': [
            {'row': 1, 'value': 'file:///x', 'meta': {'store': 'old'}}]}
        for text in ({'images': [shown]}, {'images': [before]},
                     {**answer, 'next': '/v2/images?marker=x'}):
            with open(path, 'w', encoding='utf-8') as stream:
                json.dump(text, stream)
            self.assertEqual(1, self.run_tool('audit', '--export', path)[0])
        self.assertEqual(1, self.run_tool('impact', 'a', '--export', path)[0])
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write('[{}]')
        self.assertEqual(1, self.run_tool('audit', '--export', path)[0])

    def test_a_database_that_is_not_there(self):
        secret = 'sqlite:////nowhere/at-all?password=secret'
        code, _, err = self.run_tool('audit', '--database', secret)
        self.assertEqual(1, code)
        self.assertNotIn('secret', err)
        self.assertEqual(1, self.run_tool('audit', '--config', '/nowhere')[0])


class DatadirsTest(ToolCase):
    def test_priorities_are_turned_round(self):
        path = os.path.join(self.top, 'conf')
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write('''
[other]
filesystem_store_datadirs = /no:1
filesystem_thin_provisioning = True
[old]
# filesystem_store_datadirs = /commented:1
filesystem_store_datadirs = /a:200
filesystem_store_datadirs=/b:200
filesystem_store_datadir =
filesystem_store_datadirs = /c:d:100
filesystem_store_datadirs = /e
''')
        code, out, err = self.run_tool('datadirs', '--config', path,
                                       '--store', 'old')
        self.assertEqual(0, code, err)
        self.assertEqual('/a:100,/b:100,/c:d:200,/e:300\n', out)
        self.assertRegex(err, '/a +200 +100')
        self.assertNotIn('--thin', err)
        self.assertEqual(1, self.run_tool('datadirs', '--config', path)[0])

    def test_thin_provisioning_is_an_option_of_the_agents(self):
        path = os.path.join(self.top, 'conf')
        for value, thin in (('True', True), ('on', True), ('false', False)):
            with open(path, 'w', encoding='utf-8') as stream:
                stream.write('[old]\nfilesystem_store_datadirs = /a:200\n'
                             f'filesystem_thin_provisioning = {value}\n')
            code, _, err = self.run_tool('datadirs', '--config', path,
                                         '--store', 'old')
            self.assertEqual(0, code, err)
            self.assertEqual(thin, '--thin' in err, value)

    def write_conf(self, text):
        path = os.path.join(self.top, 'conf')
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write(text)
        return path

    def test_one_directory_is_a_configuration_as_well(self):
        for text, out in (
                ('[glance_store]\nfilesystem_store_datadir = /a\n', '/a:100'),
                ('[DEFAULT]\nenabled_backends = x:rbd, old:file\n[old]\n'
                 'filesystem_store_datadir=/b/\n', '/b/:100'),
                # Set to nothing beside the others, as multi-store wants it.
                ('[glance_store]\nfilesystem_store_datadir =\n'
                 'filesystem_store_datadirs = /c:1\n', '/c:100'),
                ('[glance_store]\ndefault_store = file\n',
                 '/var/lib/glance/images:100')):
            code, said, err = self.run_tool('datadirs', '--config',
                                            self.write_conf(text))
            self.assertEqual((0, f'{out}\n'), (code, said), err)
        self.assertIn("Glance's default", err)

    def test_a_store_that_nobody_can_choose(self):
        for text, why in (
                ('[glance_store]\nfilesystem_store_datadir = /a\n'
                 'filesystem_store_datadirs = /b\n', 'Glance refuses'),
                ('[DEFAULT]\nenabled_backends = x:file, y:file\n',
                 '2 stores of type file: x, y'),
                ('[DEFAULT]\nenabled_backends = x:rbd\n',
                 '0 stores of type file'),
                ('[glance_store]\nfilesystem_store_datadir =\n',
                 'neither filesystem_store_datadir nor'),
                ('[old]\n', 'no section .glance_store.')):
            code, _, err = self.run_tool('datadirs', '--config',
                                         self.write_conf(text))
            self.assertEqual(1, code)
            self.assertRegex(err, why)

    def test_a_priority_that_is_none(self):
        with self.assertRaisesRegex(Failed, '/a:x'):
            datadirs.parse(['/a:x'])
        self.assertEqual([('/a', 0)], datadirs.parse(['/a:']))


if __name__ == '__main__':
    unittest.main()
