"""From Glance's own directories to Predella and back, with a real glance-api:
no byte is copied, and every image is served at every step."""
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid

import paths

from real_glance import Glance
from cluster import Cluster
from cluster import binary
from cluster import run
from cluster import wait_until

MIB = 1 << 20
OLD = '''
[old]
filesystem_store_datadir =
filesystem_store_datadirs = DIR/store-1:100
filesystem_store_datadirs = DIR/store-2:200
'''
NEW = '''
[fast]
predella_endpoint = ENDPOINT
predella_write_timeout = 3
predella_read_timeout = 3
'''


class MoveCase(unittest.TestCase):
    """A Glance on two directories of its own store."""
    more = ''  # of its [DEFAULT]

    def setUp(self):
        self.top = tempfile.mkdtemp(prefix='pr-move-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        self.old = OLD.replace('DIR', self.top)
        self.directories = [os.path.join(self.top, f'store-{i}')
                            for i in (1, 2)]
        for path in self.directories:
            os.mkdir(path)
        # As a console script of the package would be.
        tool = os.path.join(self.top, 'predella-glance')
        with open(tool, 'w', encoding='utf-8') as stream:
            stream.write(
                f'#!/bin/sh\nPYTHONPATH={":".join(paths.INSTALLED)} exec '
                f'{sys.executable} -m glance_store_predella.command "$@"\n')
        os.chmod(tool, 0o755)
        self.images = {}
        self.glance = Glance('old:file', self.old, more=self.more)
        self.addCleanup(self.glance.stop)

    def upload(self, size, name):
        data = random.Random(size).randbytes(size)
        image = self.glance.create(name)
        self.assertEqual(204, self.glance.upload(image, data),
                         self.glance.log()[-3000:])
        self.images[image] = data
        return image

    def predella(self, *arguments, code=0):
        done = run([binary('predella'), *arguments], env={
            'PREDELLA_ENDPOINT': self.cluster.endpoint,
            'PATH': f'{self.top}:{os.environ["PATH"]}'})
        self.assertEqual(code, done.code, f'{done.text}{done.err}')
        return done

    def assert_served(self, by):
        for image, data in self.images.items():
            shown = self.glance.show(image)
            self.assertEqual(('active', by), (shown['status'],
                                              shown['stores']))
            status, got = self.glance.download(image)
            self.assertEqual((200, hashlib.sha256(data).hexdigest()),
                             (status, hashlib.sha256(got).hexdigest()),
                             self.glance.log()[-3000:])

    def again(self, backends, sections):
        self.glance.kill()
        self.glance.configure(backends, sections)
        self.glance.start()

    def start_cluster(self):
        self.cluster = Cluster((200, 100), self.directories)
        self.addCleanup(self.cluster.stop)
        for name, path in self.cluster.paths.items():
            made = run([binary('predella'), 'mount', 'init', path, '--name',
                        name, '--with-images'])
            self.assertEqual(0, made.code, made.err)
        self.cluster.start()

    def inodes(self):
        """And all that a move might change of a file."""
        found = {}
        for path in self.directories:
            for name in os.listdir(path):
                if name != '.predella':
                    one = os.stat(os.path.join(path, name))
                    found[name] = (one.st_ino, one.st_mode, one.st_uid,
                                   one.st_gid, one.st_mtime_ns,
                                   one.st_ctime_ns)
        return found

    def in_cluster(self):
        images = self.predella('image', 'ls', '-o', 'json').json['images']
        return {one['name'].split('/')[1]: one for one in images}


class MoveTest(MoveCase):
    def test_in_and_out(self):
        for size in (0, 1, 3 * MIB + 5):
            self.upload(size, f'image of {size}')
        # The stock store fills its first priority alone.
        other = os.path.join(self.directories[0], 'notes')
        with open(other, 'w', encoding='utf-8') as stream:
            stream.write('of somebody')
        with open(os.path.join(self.directories[0], str(uuid.uuid4())), 'wb'
                  ) as stream:
            stream.write(b'left by a Glance that was killed')
        before = self.inodes()

        turned = subprocess.run(
            [os.path.join(self.top, 'predella-glance'), 'datadirs', '--config',
             self.glance.config, '--store', 'old'], check=True,
            capture_output=True, text=True)
        self.assertEqual(f'{self.top}/store-1:200,{self.top}/store-2:100\n',
                         turned.stdout)
        self.start_cluster()
        self.assert_served('old')
        config = ('--config', self.glance.config)
        dry = self.predella('adopt', *self.directories, *config, '--dry-run',
                            '--settle', '0')
        self.assertIn('1 no image', dry.err)
        self.assertIn('1 unknown to Glance', dry.err)
        self.assertIn('3 image', dry.err)
        self.assertEqual({}, self.in_cluster())
        # What was written a moment ago may be written still.
        self.assertIn('0 taken in', self.predella(
            'adopt', *self.directories, *config).err)
        self.predella('adopt', *self.directories, *config, '--settle', '0')
        self.assertEqual(set(self.images), set(self.in_cluster()))
        self.assertIn('0 taken in, 0 not, 3 were', self.predella(
            'adopt', *self.directories, *config, '--settle', '0').err)
        self.assert_served('old')
        # Uploads to the old store go on meanwhile.
        late = self.upload(MIB, 'a late one')
        self.predella('adopt', *self.directories, *config, '--settle', '0')

        both = self.old + NEW.replace('ENDPOINT', self.cluster.endpoint)
        self.again('fast:predella, old:file', both)
        plan = os.path.join(self.top, 'plan')
        self.predella('glance', 'relocate', '--store', 'fast', '--plan', plan,
                      *config)
        self.assert_served('old')
        self.predella('glance', 'relocate', '--apply', plan, '--yes', *config)
        self.assert_served('fast')
        self.again('fast:predella', NEW.replace('ENDPOINT',
                                                self.cluster.endpoint))
        self.assert_served('fast')
        self.assertEqual(before, {k: v for k, v in self.inodes().items()
                                  if k in before}, 'no file was changed')
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{late}')[0])
        del self.images[late]
        wait_until('its file is gone', lambda: late not in self.inodes())
        self.upload(2 * MIB, 'by predella')
        self.assert_served('fast')
        self.check_words_of_glance(config)

        # Out: the old store first, then the rows, then the new one goes.
        self.again('old:file, fast:predella', both)
        back = os.path.join(self.top, 'back')
        self.predella('glance', 'relocate', '--to-file', '--store', 'old',
                      '--plan', back, *config)
        self.predella('glance', 'relocate', '--apply', back, '--yes', *config)
        self.assert_served('old')
        self.again('old:file', self.old)
        for agent in self.cluster.agents.values():
            agent.kill()
        self.cluster.coordinator.kill()
        self.assert_served('old')
        for image in self.images:
            self.assertEqual(204, self.glance.call(
                'DELETE', f'/v2/images/{image}')[0])
            self.assertNotIn(image, self.inodes())

    def check_words_of_glance(self, config):
        image = next(iter(self.images))
        mount, = self.cluster.where(image)
        listed = self.predella('mount', 'impact', mount, '--glance', *config)
        url = f'sqlite:///{self.glance.top}/glance.sqlite'
        self.assertEqual(listed.text, self.predella(
            'mount', 'impact', '--database', url, mount).text)
        export = os.path.join(self.top, 'export')
        with open(export, 'w', encoding='utf-8') as stream:
            stream.write(self.predella('glance', 'export', *config).text)
        self.assertEqual(listed.text, self.predella(
            'mount', 'impact', '--export', export, '--export', export,
            mount).text)
        line, = (one for one in listed.text.splitlines() if image in one)
        self.assertRegex(line, 'active +p +image of 0')
        said = self.predella('mount', 'impact', mount, '--glance', '-o', 'json',
                             *config).json
        found, = (one['glance'] for one in said['images']
                  if one['name'] == f'images/{image}')
        self.assertEqual(('active', 'image of 0'), (found['status'],
                                                    found['name']))
        # Data that no row refers to, and a row whose data is away.
        self.predella('glance', 'audit', *config)
        leak = self.cluster.put(b'leak')
        lost = self.upload(7, 'lost')
        self.cluster.cli('image', 'rm', lost)
        del self.images[lost]
        audit = self.predella('glance', 'audit', '--older-than', '0', *config,
                              code=6)
        self.assertIn(leak, audit.text)
        self.assertIn(lost, audit.text)
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{lost}')[0])


if __name__ == '__main__':
    unittest.main()
