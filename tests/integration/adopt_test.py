"""Files that another store wrote become images where they lie."""
import hashlib
import os
import shutil
import tempfile
import threading
import time
import unittest
import uuid

from cluster import Cluster
from cluster import MIB
from cluster import binary
from cluster import random_bytes
from cluster import run
from cluster import wait_until


class AdoptTest(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix='pr-old-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        self.old = os.path.join(self.top, 'store-1')
        os.mkdir(self.old)
        self.data = {}
        for size in (0, 1, MIB, 3 * MIB + 17):
            image = str(uuid.uuid4())
            self.data[image] = random_bytes(size, size)
            self.write(image, self.data[image])
        with open(os.path.join(self.old, 'notes.txt'), 'w',
                  encoding='utf-8') as stream:
            stream.write('of somebody')

    def write(self, image, data):
        with open(os.path.join(self.old, image), 'wb') as stream:
            stream.write(data)

    def start(self):
        self.cluster = Cluster((100,), [self.old])
        self.addCleanup(self.cluster.stop)
        made = run([binary('predella'), 'mount', 'init', self.old, '--name',
                    'store-1', '--with-images'])
        self.assertEqual(0, made.code, made.err)
        self.cluster.start()
        wait_until('the files were listed', lambda: len(
            self.cluster.cli('orphan', 'ls', '-o', 'json').json['orphans']
        ) == len(self.data))

    def adopt(self, image, *more, check=True):
        return self.cluster.cli('orphan', 'adopt', 'store-1', image, '--read',
                                os.path.join(self.old, image), *more,
                                check=check)

    def assert_no_image(self, image):
        """Nor said to be missing: there is a file."""
        stat = self.cluster.cli('image', 'stat', image, check=False)
        self.assertEqual(1, stat.code)
        self.assertIn('REPLICA_MISSING', stat.err)

    def assert_served(self):
        for image, data in self.data.items():
            self.assertEqual(data, self.cluster.get(image))

    def test_a_directory_with_files_is_a_mount_only_when_that_is_said(self):
        made = run([binary('predella'), 'mount', 'init', self.old])
        self.assertEqual(5, made.code)
        self.assertIn('--with-images', made.err)
        self.assertFalse(os.path.exists(os.path.join(self.old, '.predella')))

    def test_taken_in_where_they_lie(self):
        before = {image: os.stat(os.path.join(self.old, image))
                  for image in self.data}
        self.start()
        for image, data in self.data.items():
            dry = self.adopt(image, '--dry-run')
            self.assertIn('would be', dry.text)
            self.assert_no_image(image)
            self.adopt(image, '--size', str(len(data)), '--hash',
                       f'sha512:{hashlib.sha512(data).hexdigest()}')
            self.adopt(image)  # again: the answer may have been lost
            stat = self.cluster.cli('image', 'stat', image, '-o', 'json').json
            self.assertEqual(
                {'md5': hashlib.md5(data).hexdigest(),
                 'sha512': hashlib.sha512(data).hexdigest()},
                {one['algorithm']: one['hex'] for one in stat['hashes']})
            self.assertRegex(stat['locationKey'], '^[0-9a-f]{32}$')
            now = os.stat(os.path.join(self.old, image))
            self.assertEqual(
                (before[image].st_ino, before[image].st_mtime_ns,
                 before[image].st_size),
                (now.st_ino, now.st_mtime_ns, now.st_size))
        self.assert_served()
        self.assertTrue(os.path.exists(os.path.join(self.old, 'notes.txt')))
        # They are images as any: after a scrub, and a restart of all.
        self.cluster.cli('mount', 'scrub', 'store-1')
        wait_until('the scrub is done', lambda: self.cluster.cli(
            'mount', 'stat', 'store-1', '-o', 'json').json['scrub'].get(
                'completeTime'))
        self.assertEqual(0, self.cluster.cli('index', 'check').code)
        self.cluster.agents['store-1'].kill()
        self.cluster.coordinator.kill()
        self.cluster.coordinator.start()
        self.cluster.agents['store-1'].start()
        self.cluster.wait_ready()
        self.assert_served()
        # Also by the directory alone.
        self.cluster.agents['store-1'].kill()
        self.cluster.coordinator.kill()
        shutil.rmtree(os.path.join(self.cluster.state, 'index'))
        self.cluster.cli('index', 'rebuild', '--state-dir',
                         self.cluster.state, '--datadirs', self.old, '--yes')
        self.cluster.coordinator.start()
        self.cluster.agents['store-1'].start()
        self.cluster.wait_ready()
        wait_until('all are in the index', lambda: len(self.cluster.cli(
            'image', 'ls', '-o', 'json').json['images']) == len(self.data))
        self.assert_served()
        for image in self.data:
            self.cluster.cli('image', 'rm', image)
        wait_until('their files are gone', lambda: self.cluster.files(
            'store-1') == ['notes.txt'])

    def test_what_is_not_as_expected_stays_what_it_was(self):
        self.start()
        image, data = next((i, d) for i, d in self.data.items()
                           if len(d) == MIB)
        for more in (('--size', str(len(data) + 1)),
                     ('--hash', 'md5:' + '0' * 32)):
            self.assertEqual(1, self.adopt(image, *more, check=False).code)
        # Another file of that size was read: the agent finds other bytes.
        other = os.path.join(self.top, 'other')
        with open(other, 'wb') as stream:
            stream.write(random_bytes(MIB, 99))
        done = self.cluster.cli('orphan', 'adopt', 'store-1', image, '--read',
                                other, check=False)
        self.assertEqual(1, done.code, done.err)
        self.assertIn('checksum', done.err)
        self.assert_no_image(image)
        self.adopt(image)
        self.assertEqual(data, self.cluster.get(image))

    @unittest.skipUnless(os.geteuid() == 0, 'needs root')
    def test_files_of_another_user(self):
        """What the agent may not read is left; what it may is taken in, and
        stays that user's."""
        nobody = 65534
        (theirs, _), (own, data), (shown, more), *_ = self.data.items()
        os.chmod(os.path.join(self.old, theirs), 0o600)
        os.chmod(os.path.join(self.old, shown), 0o444)
        for path in (self.top, self.old, os.path.join(self.old, own)):
            os.chown(path, nobody, nobody)
        os.chmod(self.top, 0o755)
        self.cluster = Cluster((100,), [self.old])
        self.addCleanup(self.cluster.stop)
        for path in (self.cluster.top, self.cluster.sockets):
            os.chmod(path, 0o777)
        as_nobody = ['setpriv', f'--reuid={nobody}', f'--regid={nobody}',
                     '--clear-groups']
        made = run([*as_nobody, binary('predella'), 'mount', 'init', self.old,
                    '--with-images'])
        self.assertEqual(0, made.code, made.err)
        self.cluster.coordinator.start()
        socket = os.path.join(self.cluster.sockets, 'c')
        wait_until('the coordinator listens', lambda: os.path.exists(socket))
        os.chmod(socket, 0o777)
        agent = self.cluster.agents['store-1']
        agent.argv = as_nobody + agent.argv
        agent.start()
        self.cluster.wait_ready()
        wait_until('the files were listed', lambda: self.adopt(
            own, check=False).code == 0)
        self.assertEqual(data, self.cluster.get(own))
        refused = self.adopt(theirs, check=False)
        self.assertEqual(1, refused.code)
        self.assertIn('MOUNT_PERMISSION', refused.err)
        # It says nothing of the mount.
        self.assertEqual('HEALTH_ONLINE', self.cluster.cli(
            'mount', 'stat', 'store-1', '-o', 'json').json['health'])
        before = os.stat(os.path.join(self.old, shown))
        self.adopt(shown)
        self.assertEqual(more, self.cluster.get(shown))
        after = os.stat(os.path.join(self.old, shown))
        self.assertEqual((0, 0o100444, before.st_ctime_ns),
                         (after.st_uid, after.st_mode, after.st_ctime_ns))

    def test_an_agent_that_takes_its_time_or_dies(self):
        self.start()
        slow, killed, *_ = self.data
        agent = self.cluster.agents['store-1']
        agent.pause()
        done = []
        thread = threading.Thread(target=lambda: done.append(
            self.adopt(slow, check=False)))
        thread.start()
        time.sleep(8)  # longer than one call waits
        agent.resume()
        thread.join(60)
        self.assertEqual(0, done[0].code, done[0].err)
        agent.pause()
        thread = threading.Thread(target=lambda: done.append(
            self.adopt(killed, check=False)))
        thread.start()
        time.sleep(0.5)
        agent.kill()
        thread.join(60)
        self.assertEqual(4, done[1].code, done[1].err)
        agent.start()
        self.cluster.wait_ready()
        wait_until('the file was listed again', lambda: self.adopt(
            killed, check=False).code == 0)
        self.assertEqual(self.data[killed], self.cluster.get(killed))


if __name__ == '__main__':
    unittest.main()
