"""The way out where Glance is not root and not the agents' user: Glance's own
store on the same directories serves every image, byte for byte. Needs root, to
become two other users.
"""
import hashlib
import http.client
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

import paths

from real_glance import Glance
from cluster import Cluster
from cluster import binary
from cluster import run
from cluster import wait_until

MIB = 1 << 20
GLANCE = (64061, 64061)  # Glance's user and group, in no group besides
AGENTS = 64062
OLD = '''
[old]
filesystem_store_datadir =
filesystem_store_datadirs = DIR/store-1:100
filesystem_store_datadirs = DIR/store-2:200
'''
NEW = '''
[fast]
predella_endpoint = ENDPOINT
'''


def may_run_python():
    uid, gid = GLANCE
    return subprocess.run(
        ['setpriv', f'--reuid={uid}', f'--regid={gid}', '--clear-groups',
         sys.executable, '-c', 'import glance'], capture_output=True,
        check=False).returncode == 0


def give(top, uid, gid):
    for path, _, names in os.walk(top):
        for name in ('', *names):
            os.chown(os.path.join(path, name), uid, gid)


class OutTest(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest('needs root, to be two other users')
        if not may_run_python():
            self.skipTest(f'{sys.executable} is not for other users')
        self.top = tempfile.mkdtemp(prefix='pr-out-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        os.chmod(self.top, 0o755)
        self.images = {}

    def start(self, group, mode, *agent_args):
        """Both directories are of the agents' user; the agents are in Glance's
        group besides."""
        directories = [os.path.join(self.top, f'store-{i}') for i in (1, 2)]
        self.cluster = cluster = Cluster((200, 100), directories,
                                         agent_args=agent_args)
        self.addCleanup(cluster.stop)
        cluster.init_mounts()
        for path in directories:
            give(path, AGENTS, AGENTS)
            os.chown(path, AGENTS, group)
            os.chmod(path, mode)
        for path in (cluster.top, cluster.sockets):
            os.chmod(path, 0o777)
        # Where any user may run it.
        program = os.path.join(self.top, 'predella-agent')
        shutil.copy(binary('predella-agent'), program)
        cluster.coordinator.start()
        self.open_socket('c')
        for name, daemon in cluster.agents.items():
            daemon.argv = ['setpriv', f'--reuid={AGENTS}', f'--regid={AGENTS}',
                           f'--groups={GLANCE[1]}', program, *daemon.argv[1:]]
            daemon.start()
            self.open_socket(name)
        cluster.wait_ready()
        self.old = OLD.replace('DIR', self.top)
        self.new = NEW.replace('ENDPOINT', cluster.endpoint)
        self.glance = Glance('fast:predella', self.new, user=GLANCE)
        self.addCleanup(self.glance.stop)

    def open_socket(self, name):
        path = os.path.join(self.cluster.sockets, name)
        wait_until(f'{path} is there', lambda: os.path.exists(path))
        os.chmod(path, 0o666)

    def upload(self, size, **headers):
        data = random.Random(size).randbytes(size)
        image = self.glance.create(f'of {size}')
        self.assertEqual(204, self.glance.upload(image, data, **headers),
                         self.glance.log()[-3000:])
        self.images[image] = data
        return image

    def again(self, backends, sections):
        self.glance.kill()
        self.glance.configure(backends, sections)
        self.glance.start()

    def relocate(self):
        """What the plan, which is then applied, said at its end."""
        self.plans = getattr(self, 'plans', 0) + 1
        plan = os.path.join(self.top, f'plan-{self.plans}')
        tool = [sys.executable, '-m', 'glance_store_predella.command',
                'relocate']
        environment = {'PYTHONPATH': ':'.join(paths.INSTALLED),
                       'PREDELLA_ENDPOINT': self.cluster.endpoint,
                       'PREDELLA_PROGRAM': binary('predella')}
        said = []
        for step in (('--to-file', '--store', 'old', '--plan', plan),
                     ('--apply', plan, '--yes')):
            done = run([*tool, *step, '--config', self.glance.config],
                       env=environment)
            self.assertEqual(0, done.code, done.err)
            said.append(done.err)
        return said[0]

    def move_out(self, meanwhile=lambda: None, readable=True):
        """As docs/glance.md has it. All is served at every step, where Glance
        may read it."""
        self.again('old:file, fast:predella', self.old + self.new)
        self.assert_served()
        self.assertIn(f'{len(self.images)} rows to change, 0 left',
                      self.relocate())
        if readable:
            self.assert_served('old')
        meanwhile()
        self.relocate()
        self.assertIn('0 rows to change, 0 left', self.relocate())
        self.again('old:file', self.old)
        self.assertIn('0 rows to change, 0 left', self.relocate())
        for agent in self.cluster.agents.values():
            agent.kill()
        self.cluster.coordinator.kill()

    def assert_served(self, by=None):
        for image, data in self.images.items():
            if by is not None:
                self.assertEqual([by], [self.glance.show(image)['stores']])
            status, got = self.glance.download(image)
            self.assertEqual(
                (200, len(data), hashlib.sha256(data).hexdigest()),
                (status, len(got), hashlib.sha256(got).hexdigest()),
                self.glance.log()[-3000:])

    def files(self):
        """(owner, group, mode) of each image."""
        found = {}
        for path in self.cluster.paths.values():
            for image in self.images:
                name = os.path.join(path, image)
                if os.path.exists(name):
                    one = os.stat(name)
                    found[image] = (one.st_uid, one.st_gid,
                                    stat.S_IMODE(one.st_mode))
        return found

    def fill(self):
        for size in (0, 1, 3 * MIB + 5, 40 * MIB):
            self.upload(size)
        # On both directories.
        self.cluster.cli('mount', 'cordon', 'store-2')
        self.upload(2 * MIB)
        self.assertEqual(len(self.images), len(self.files()))
        self.assertEqual({(AGENTS, GLANCE[1], 0o640)},
                         set(self.files().values()))
        self.assertEqual(2, len({self.cluster.where(image)[0]
                                 for image in self.images}))

    def test_group_of_the_directories(self):
        self.start(GLANCE[1], 0o775)
        self.fill()

        def meanwhile():
            # To the default store, and by a user who names the other one.
            late = self.upload(MIB + 1)
            self.assertEqual('old', self.glance.show(late)['stores'])
            late = self.upload(MIB + 2, X_Image_Meta_Store='fast')
            self.assertEqual('fast', self.glance.show(late)['stores'])
            self.delete_one()
            self.assert_served()
        self.move_out(meanwhile)
        self.assert_served('old')
        # Glance's in every way: they go, and new ones come beside them.
        self.delete_one()
        self.upload(MIB)
        self.assert_served('old')

    def delete_one(self):
        gone = next(iter(self.images))
        self.assertIn(gone, self.files())
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{gone}')[0])
        self.assertNotIn(gone, self.files())
        del self.images[gone]

    def test_what_is_damaged_stays_behind(self):
        """Glance's own store would serve it as whole."""
        self.start(GLANCE[1], 0o775)
        whole, damaged = self.upload(MIB), self.upload(2 * MIB)
        mount, = self.cluster.where(damaged)
        path = os.path.join(self.cluster.paths[mount], damaged)
        with open(path, 'r+b') as stream:
            stream.seek(MIB)
            stream.write(b'other bytes')
        self.cluster.cli('image', 'get', damaged, check=False)
        wait_until('it is found', lambda: self.cluster.cli(
            'image', 'stat', damaged, '-o', 'json').json['health'] ==
            'IMAGE_HEALTH_DEGRADED')
        self.again('old:file, fast:predella', self.old + self.new)
        said = self.relocate()
        self.assertIn('1 rows to change, 1 left', said)
        self.assertRegex(said, f'left as it is: {damaged}: it is DEGRADED: its '
                         f'copy on {mount} is DAMAGED')
        self.assertEqual('fast', self.glance.show(damaged)['stores'])
        del self.images[damaged]
        self.assertEqual([whole], list(self.images))
        self.assert_served('old')

    def test_group_by_option(self):
        self.start(AGENTS, 0o755, '--file-group', str(GLANCE[1]))
        self.fill()
        self.move_out()
        self.assert_served('old')

    def test_a_mode_without_the_group_locks_glance_out(self):
        """What --file-mode 0600 means on the way out."""
        self.start(GLANCE[1], 0o775, '--file-mode', '0600')
        image = self.upload(1000)
        self.assertEqual(200, self.glance.download(image)[0])
        self.move_out(readable=False)
        try:
            self.assertNotEqual(200, self.glance.download(image)[0])
        except http.client.RemoteDisconnected:
            pass  # what uWSGI makes of Glance's 500
        path, = (os.path.join(path, image)
                 for path in self.cluster.paths.values()
                 if os.path.exists(os.path.join(path, image)))
        os.chmod(path, 0o640)
        self.assert_served('old')


if __name__ == '__main__':
    unittest.main()
