"""predella-glance on PostgreSQL, with the tables that Glance makes."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid

import environment  # noqa: F401

from glance_store_predella import glance_db
from glance_store_predella import relocate
from glance_tool_test import FakeCluster
from glance_tool_test import KEY

PROGRAMS = (sorted(glob.glob('/usr/lib/postgresql/*/bin')) or [''])[-1]
USER = 'nobody'  # it does not run as root


def as_user(*argv):
    if os.geteuid() == 0:
        argv = ('setpriv', f'--reuid={USER}', '--regid=nogroup',
                '--clear-groups', *argv)
    return subprocess.run(argv, check=True, capture_output=True, text=True,
                          cwd='/', timeout=120)


@unittest.skipUnless(PROGRAMS, 'needs postgresql')
class PostgresTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            import psycopg2  # noqa: F401
        except ImportError as e:
            raise unittest.SkipTest('needs python3-psycopg2') from e
        cls.top = tempfile.mkdtemp(prefix='pr-pg-', dir='/tmp')
        cls.addClassCleanup(shutil.rmtree, cls.top, ignore_errors=True)
        os.chmod(cls.top, 0o777)
        data = os.path.join(cls.top, 'data')
        as_user(f'{PROGRAMS}/initdb', '-D', data, '-A', 'trust', '-U',
                'glance', '--no-sync')
        as_user(f'{PROGRAMS}/pg_ctl', '-D', data, '-w', '-l',
                os.path.join(cls.top, 'log'), '-o',
                f'-k {cls.top} -c listen_addresses= -c fsync=off', 'start')
        cls.addClassCleanup(as_user, f'{PROGRAMS}/pg_ctl', '-D', data, '-m',
                            'immediate', 'stop')
        cls.psql('CREATE DATABASE glance', 'postgres')
        cls.url = f'postgresql+psycopg2://glance@/glance?host={cls.top}'
        conf = os.path.join(cls.top, 'glance.conf')
        with open(conf, 'w', encoding='utf-8') as stream:
            stream.write(f'[database]\nconnection = {cls.url}\n')
        subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', 'import sys; '
             'from glance.cmd.manage import main; main()', '--config-file',
             conf, 'db_sync'], check=True, capture_output=True, timeout=120)

    @classmethod
    def psql(cls, text, database='glance'):
        return as_user(f'{PROGRAMS}/psql', '-h', cls.top, '-U', 'glance', '-v',
                       'ON_ERROR_STOP=1', '-At', '-c', text, database).stdout

    def setUp(self):
        self.psql('DELETE FROM image_locations; DELETE FROM images')
        self.database = glance_db.Database(self.url)
        self.cluster = FakeCluster({'a': '/a'})
        self.images = [str(uuid.uuid4()) for _ in range(3)]
        for image in self.images:
            self.cluster.add(image, 'a')
            self.psql(f'''
INSERT INTO images (id, name, owner, status, size, created_at, updated_at,
  deleted, min_disk, min_ram, protected, visibility, os_hidden)
VALUES ('{image}', 'n', 'o', 'active', 3, now(), now(), false, 0, 0, false,
  'shared', false);
INSERT INTO image_locations (image_id, value, meta_data, created_at,
  updated_at, deleted, status)
VALUES ('{image}', 'file:///a/{image}', '{{"store": "old"}}', now(), now(),
  false, 'active')''')
        # One that Glance has forgotten.
        self.psql(f"UPDATE image_locations SET deleted = true "
                  f"WHERE image_id = '{self.images[2]}'")

    def plan(self):
        return relocate.plan_to_predella(
            'fast', relocate.Places(self.cluster.mounts(), []),
            self.cluster.images(), self.database.images())[0]

    def values(self):
        return dict(line.split('|') for line in self.psql(
            'SELECT image_id, value FROM image_locations').split())

    def wanted(self):
        return {image: f'predella://fast/{image}/{KEY}'
                if image != self.images[2] else f'file:///a/{image}'
                for image in self.images}

    def test_there_and_back(self):
        before = self.values()
        changes = self.plan()
        self.assertEqual((2, 0, []),
                         relocate.apply_plan(self.database, changes))
        self.assertEqual(self.wanted(), self.values())
        self.assertEqual((0, 2, []),
                         relocate.apply_plan(self.database, changes))
        self.assertEqual((2, 0, []), relocate.apply_plan(
            self.database, relocate.turned_round(changes)))
        self.assertEqual(before, self.values())

    def test_statements(self):
        self.psql('\n'.join(relocate.statements(self.plan())))
        self.assertEqual(self.wanted(), self.values())
        self.assertEqual('{"store": "fast"}\n', self.psql(
            'SELECT DISTINCT meta_data FROM image_locations '
            "WHERE value LIKE 'predella:%'"))


if __name__ == '__main__':
    unittest.main()
