"""What tests of predella-glance share: a fake cluster, and a database of Glance's
in SQLite."""
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

from glance_store_predella import cluster as clusters
from glance_store_predella import command

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

    def uid(self):
        return 'this one'

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

    def fault(self, image, mount, fault, detail=''):
        """As a scrub or a listing finds it; HEALTH_...: that of its mount."""
        row = self.rows[image]
        row['health'] = 'IMAGE_HEALTH_DEGRADED'
        copy, = (one for one in row['copies']
                 if one['mount'] == f'mounts/{mount}')
        if fault.startswith('HEALTH_'):
            copy['health'] = fault
        else:
            copy['fault'] = f'COPY_FAULT_{fault}'
            copy['faultDetail'] = detail

    def add(self, image, mount, size=3, hashes=None, hours=5):
        made = NOW - datetime.timedelta(hours=hours)
        self.rows[image] = {
            'name': f'images/{image}', 'sizeBytes': str(size),
            'locationKey': KEY, 'health': 'IMAGE_HEALTH_HEALTHY',
            'createTime': made.strftime('%Y-%m-%dT%H:%M:%S.123456Z'),
            'hashes': [{'algorithm': a, 'hex': h}
                       for a, h in (hashes or {}).items()],
            'copies': [{'mount': f'mounts/{one}', 'health': self.health,
                        'fault': 'COPY_FAULT_UNSPECIFIED'}
                       for one in mount.split(',')]}


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
        self.clusters = {}  # others, by endpoint
        clusters.Cluster = lambda endpoint: self.clusters.get(endpoint,
                                                              self.cluster)
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
