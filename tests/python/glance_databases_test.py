"""predella-glance on the databases that Glance runs on, with the tables that
Glance makes."""
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid

import environment  # noqa: F401
import sqlalchemy

from database_servers import MariaDb
from database_servers import PostgreSql
from glance_store_predella import cluster as clusters
from glance_store_predella import command
from glance_store_predella import glance_db
from tool_case import FakeCluster
from tool_case import KEY


class DatabaseCase:
    server_class = None

    @classmethod
    def setUpClass(cls):
        why = cls.server_class.missing()
        if why:
            raise unittest.SkipTest(why)
        cls.server = cls.server_class()
        cls.addClassCleanup(cls.server.stop)
        cls.top = tempfile.mkdtemp(prefix='pr-dbs-', dir='/tmp')
        cls.addClassCleanup(shutil.rmtree, cls.top, ignore_errors=True)
        cls.conf = os.path.join(cls.top, 'glance.conf')
        with open(cls.conf, 'w', encoding='utf-8') as stream:
            stream.write(f'[database]\nconnection = {cls.server.url}\n'
                         '[glance_store]\nfilesystem_store_datadir =\n')
        subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', 'import sys; '
             'from glance.cmd.manage import main; main()', '--config-file',
             cls.conf, 'db_sync'], check=True, capture_output=True,
            timeout=120)
        cls.engine = sqlalchemy.create_engine(cls.server.url)
        cls.addClassCleanup(cls.engine.dispose)

    @classmethod
    def sql(cls, *statements):
        """The rows of the last one."""
        with cls.engine.begin() as connection:
            for one in statements:
                done = connection.exec_driver_sql(one)
            return ([tuple(row) for row in done] if done.returns_rows else [])

    def setUp(self):
        self.sql('DELETE FROM image_locations', 'DELETE FROM images')
        self.cluster = FakeCluster({'a': '/a'})
        original = clusters.Cluster
        clusters.Cluster = lambda endpoint: self.cluster
        self.addCleanup(setattr, clusters, 'Cluster', original)
        self.plan_file = os.path.join(self.top, f'plan-{uuid.uuid4()}')
        self.images = [self.image() for _ in range(3)]
        for image in self.images:
            self.cluster.add(image, 'a')
        # One that Glance has forgotten.
        self.sql("UPDATE image_locations SET deleted = true "
                 f"WHERE image_id = '{self.images[2]}'")

    def image(self, location='file:///a/ID', name='n'):
        image = str(uuid.uuid4())
        self.sql(f'''
INSERT INTO images (id, name, owner, status, size, created_at, updated_at,
  deleted, min_disk, min_ram, protected, visibility, os_hidden)
VALUES ('{image}', '{name}', 'o', 'active', 3, now(), now(), false, 0, 0, false,
  'shared', false)''', f'''
INSERT INTO image_locations (image_id, value, meta_data, created_at,
  updated_at, deleted, status)
VALUES ('{image}', '{location.replace('ID', image)}', '{{"store": "old"}}',
  now(), now(), false, 'active')''')
        return image

    def run_tool(self, *arguments, code=0):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            got = command.main([*arguments, '--config', self.conf])
        self.assertEqual(code, got, out.getvalue() + err.getvalue())
        return out.getvalue()

    def plan(self):
        self.run_tool('relocate', '--store', 'fast', '--plan', self.plan_file)

    def values(self):
        return dict(self.sql('SELECT image_id, value FROM image_locations'))

    def stores(self):
        return {image: json.loads(meta)['store'] for image, meta in self.sql(
            'SELECT image_id, meta_data FROM image_locations')}

    def rows(self):
        return sorted(map(tuple, self.sql(
            'SELECT image_id, value, meta_data FROM image_locations')))

    def forget_metadata(self):
        """As in rows of before there were stores."""
        self.sql('UPDATE image_locations SET meta_data = NULL '
                 f"WHERE image_id = '{self.images[1]}'")

    def wanted(self):
        return {image: f'predella://fast/{image}/{KEY}'
                if image != self.images[2] else f'file:///a/{image}'
                for image in self.images}

    def assert_relocated(self):
        self.assertEqual(self.wanted(), self.values())
        self.assertEqual(
            {image: 'fast' if image != self.images[2] else 'old'
             for image in self.images}, self.stores())

    def test_there_and_back(self):
        self.forget_metadata()
        before = self.rows()
        self.plan()
        self.assertEqual(before, self.rows())
        for _ in range(2):  # it may be broken off and begun again
            self.run_tool('relocate', '--apply', self.plan_file, '--yes')
            self.assert_relocated()
        self.run_tool('relocate', '--undo', self.plan_file, '--yes')
        self.assertEqual(before, self.rows())

    def test_to_file(self):
        before = self.values()
        self.plan()
        self.run_tool('relocate', '--apply', self.plan_file, '--yes')
        back = self.plan_file + '-back'
        self.run_tool('relocate', '--to-file', '--store', 'old', '--plan',
                      back)
        self.run_tool('relocate', '--apply', back, '--yes')
        self.assertEqual(before, self.values())

    def test_a_row_that_changed_meanwhile_is_left(self):
        self.plan()
        other = f'file:///elsewhere/{self.images[0]}'
        self.sql(f"UPDATE image_locations SET value = '{other}' "
                 f"WHERE image_id = '{self.images[0]}'")
        self.run_tool('relocate', '--apply', self.plan_file, '--yes', code=1)
        self.assertEqual({**self.wanted(), self.images[0]: other},
                         self.values())

    def test_statements(self):
        self.forget_metadata()
        before = self.rows()
        self.plan()
        for how, check in (
                ('--apply', self.assert_relocated),
                ('--undo', lambda: self.assertEqual(before, self.rows()))):
            printed = self.run_tool('relocate', how, self.plan_file, '--sql')
            # Printed alone; to be changed as well is another thing.
            self.run_tool('relocate', how, self.plan_file, '--sql', '--yes',
                          code=2)
            self.assertEqual(2, len(printed.splitlines()))
            self.sql(*(line.rstrip(';') for line in printed.splitlines()))
            check()

    def test_many_rows(self):
        for _ in range(250):
            self.images.append(self.image())
            self.cluster.add(self.images[-1], 'a')
        self.plan()
        self.run_tool('relocate', '--apply', self.plan_file, '--yes')
        self.assert_relocated()

    def test_a_second_row_of_one_file_goes_and_comes_back(self):
        one = self.images[0]
        self.sql(f'''
INSERT INTO image_locations (image_id, value, meta_data, created_at,
  updated_at, deleted, status)
VALUES ('{one}', 'predella://fast/{one}/{KEY}', '{{"store": "fast"}}', now(),
  now(), false, 'active')''')
        self.plan()

        def rows():
            return [(value, status, at is None) for value, status, at in
                    self.sql('SELECT value, status, deleted_at FROM '
                             f"image_locations WHERE image_id = '{one}' "
                             'ORDER BY id')]
        both = rows()
        gone = [(both[0][0], 'deleted', False), both[1]]
        for how, wanted in (('--apply', gone), ('--undo', both)):
            self.run_tool('relocate', how, self.plan_file, '--yes')
            self.assertEqual(wanted, rows())
        for how, wanted in (('--apply', gone), ('--undo', both)):
            self.sql(*(line.rstrip(';') for line in self.run_tool(
                'relocate', how, self.plan_file, '--sql').splitlines()))
            self.assertEqual(wanted, rows())

    def test_pages_and_deletes_that_wait(self):
        for _ in range(30):
            self.images.append(self.image())
            self.cluster.add(self.images[-1], 'a')
        waits = self.images[5]
        self.sql(f"UPDATE images SET deleted = true, status = 'pending_delete' "
                 f"WHERE id = '{waits}'", 'UPDATE image_locations SET deleted '
                 "= true, status = 'pending_delete' "
                 f"WHERE image_id = '{waits}'")
        self.addCleanup(setattr, glance_db, 'PAGE', glance_db.PAGE)
        glance_db.PAGE = 4
        found = glance_db.Database(self.server.url).images()
        self.assertEqual(set(self.images), set(found))
        for image, one in found.items():
            self.assertEqual(
                [] if image == self.images[2] else
                [(f'file:///a/{image}', image == waits)],
                [(row.value, row.pending) for row in one.locations])

    def test_audit_and_export(self):
        missing = self.image(f'predella://fast/ID/{KEY}', name='gone')
        leaked = self.images[2]
        found = self.run_tool('audit', code=6)
        self.assertIn(leaked, found)
        self.assertRegex(found, f'{missing}.*gone')
        for fine in self.images[:2]:
            self.assertNotIn(fine, found)
        exported = os.path.join(self.top, 'export.json')
        with open(exported, 'w', encoding='utf-8') as stream:
            stream.write(self.run_tool('export'))
        with open(exported, encoding='utf-8') as stream:
            images = {one['id']: one for one in json.load(stream)['images']}
        self.assertEqual({*self.images, missing}, set(images))
        self.assertEqual(('gone', 'o', 'active', 3), tuple(
            images[missing][key]
            for key in ('name', 'owner', 'status', 'size')))
        self.assertEqual([f'file:///a/{self.images[0]}'], [
            one['value'] for one in images[self.images[0]]['locations']])
        self.assertEqual([], images[leaked]['locations'])


class MariaDbTest(DatabaseCase, unittest.TestCase):
    server_class = MariaDb


class PostgreSqlTest(DatabaseCase, unittest.TestCase):
    server_class = PostgreSql


if __name__ == '__main__':
    unittest.main()
