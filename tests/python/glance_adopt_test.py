"""What adopt --dry-run calls an image is taken in, and nothing else is, of every
class of file; and nothing of a file is changed. The agent is another user than
the files' owners and than who runs adopt."""
import os
import shutil
import struct
import subprocess
import tempfile
import time
import unittest
import uuid

import environment  # noqa: F401

from glance_store_predella import adopt
from glance_store_predella import cluster as clusters
from cluster import Cluster
from cluster import binary
from cluster import run
from cluster import wait_until

GLANCE = (64061, 64063)
OTHER = (64062, 64062)
DATA = b'of an image' * 1000


class AdoptAsAnotherUserTest(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest('needs root, to be other users')
        self.top = tempfile.mkdtemp(prefix='pr-adopt-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        os.chmod(self.top, 0o755)
        self.old = os.path.join(self.top, 'store-1')
        os.mkdir(self.old)
        os.chown(self.old, *GLANCE)
        self.files = {}

    def write(self, what, owner=GLANCE, mode=0o640):
        path = os.path.join(self.old, str(uuid.uuid4()))
        with open(path, 'wb') as stream:
            stream.write(DATA)
        os.chown(path, *owner)
        os.chmod(path, mode)
        self.files[path] = what
        return path

    def write_with_list(self, what, owner, user, group_obj, group=None,
                        mask=4, others=0):
        """`user` and `group`: what those of GLANCE may; None: not named."""
        path = self.write(what, owner, 0o640)
        entries = [(0x01, 6, -1), (0x02, user, GLANCE[0]),
                   (0x04, group_obj, -1), (0x08, group, GLANCE[1]),
                   (0x10, mask, -1), (0x20, others, -1)]
        value = struct.pack('<I', 2) + b''.join(
            struct.pack('<HHi', *one) for one in entries if one[1] is not None)
        try:
            os.setxattr(path, 'system.posix_acl_access', value)
        except OSError as e:
            self.skipTest(f'no access control lists in {self.top}: {e}')
        return path

    def start(self):
        self.cluster = cluster = Cluster((100,), [self.old])
        self.addCleanup(cluster.stop)
        for path in (cluster.top, cluster.sockets):
            os.chmod(path, 0o777)
        programs = {}
        for name in ('predella', 'predella-agent'):
            programs[name] = os.path.join(self.top, name)
            shutil.copy(binary(name), programs[name])
        as_glance = ['setpriv', f'--reuid={GLANCE[0]}', f'--regid={GLANCE[1]}',
                     '--clear-groups']
        made = run([*as_glance, programs['predella'], 'mount', 'init',
                    self.old, '--name', 'store-1', '--with-images'])
        self.assertEqual(0, made.code, made.err)
        cluster.coordinator.start()
        socket = os.path.join(cluster.sockets, 'c')
        wait_until('the coordinator listens', lambda: os.path.exists(socket))
        os.chmod(socket, 0o777)
        agent = cluster.agents['store-1']
        agent.argv = [*as_glance, programs['predella-agent'], *agent.argv[1:]]
        agent.start()
        cluster.wait_ready()
        os.environ['PREDELLA_PROGRAM'] = binary('predella')
        self.addCleanup(os.environ.pop, 'PREDELLA_PROGRAM')
        self.tool = clusters.Cluster(cluster.endpoint)

    def look(self, *paths):
        mounts, again = adopt.mounts_at(self.tool, paths or (self.old,))
        return adopt.look(self.tool, mounts, None, 300,
                          clock=lambda: time.time() + 1000), again

    def states(self):
        """All that stat tells of them but when they were read."""
        return {path: tuple(getattr(os.stat(path), name) for name in (
            'st_ino', 'st_mode', 'st_uid', 'st_gid', 'st_size', 'st_nlink',
            'st_mtime_ns', 'st_ctime_ns')) for path in self.files}

    def test_dry_run_and_run_agree(self):
        self.write(adopt.TAKE)
        self.write(adopt.TAKE, mode=0o600)
        # Nobody may write to it, nor does anybody.
        self.write(adopt.TAKE, mode=0o444)
        self.write(adopt.TAKE, mode=0o400)
        self.write(adopt.TAKE, owner=OTHER, mode=0o644)
        self.write(adopt.TAKE, owner=(OTHER[0], GLANCE[1]), mode=0o640)
        self.write(adopt.UNREADABLE, owner=OTHER, mode=0o640)
        self.write(adopt.UNREADABLE, owner=(0, 0), mode=0o600)
        self.write(adopt.UNREADABLE, mode=0o000)
        self.write(adopt.UNREADABLE, owner=(OTHER[0], GLANCE[1]), mode=0o604)
        # Access control lists: for its user, for its group, against its user
        # whatever its group may, and what the mask takes away.
        self.write_with_list(adopt.TAKE, OTHER, user=4, group_obj=0)
        self.write_with_list(adopt.TAKE, OTHER, None, 0, group=4)
        self.write_with_list(adopt.UNREADABLE, (OTHER[0], GLANCE[1]), user=0,
                             group_obj=4)
        self.write_with_list(adopt.UNREADABLE, OTHER, user=4, group_obj=0,
                             mask=0)
        self.write_with_list(adopt.UNREADABLE, OTHER, None, 4)
        self.write_with_list(adopt.UNREADABLE, OTHER, 0, 4, others=4)
        self.write_with_list(adopt.TAKE, OTHER, 0, 4, mask=0, others=4)
        linked = self.write(adopt.LINKED)
        os.link(linked, os.path.join(self.top, 'a second name'))
        self.start()
        before = self.states()
        found, _ = self.look()
        self.assertEqual(self.files, {one.path: one.kind for one in found})
        # Whatever the dry run says: what the agent itself says of each.
        for one in found:
            one.kind = adopt.TAKE
        said = {one.path: why for one, why in adopt.take(self.tool, found,
                                                         None)}
        self.assertEqual(
            {path for path, what in self.files.items() if what == adopt.TAKE},
            {path for path, why in said.items() if why is None}, said)
        self.assertEqual(before, self.states())
        for path, what in self.files.items():
            if what == adopt.TAKE:
                image = os.path.basename(path)
                self.assertEqual(DATA, self.cluster.get(image))
        self.assertEqual({adopt.ALREADY}, {
            one.kind for one in self.look()[0]
            if self.files[one.path] == adopt.TAKE})
        # Those of others can be deleted all the same, as by Glance.
        for path, what in self.files.items():
            if what == adopt.TAKE:
                self.cluster.cli('image', 'rm', os.path.basename(path))
                wait_until('its file is gone',
                           lambda path=path: not os.path.exists(path))

    def test_after_a_restart_they_are_images(self):
        path = self.write(adopt.TAKE, owner=(0, 0), mode=0o444)
        self.start()
        before = self.states()
        found, _ = self.look()
        (_, why), = adopt.take(self.tool, found, None)
        self.assertIsNone(why)
        agent = self.cluster.agents['store-1']
        agent.kill()
        agent.start()
        self.cluster.wait_ready()
        self.assertEqual(DATA, self.cluster.get(os.path.basename(path)))
        self.cluster.cli('mount', 'scrub', 'store-1')
        wait_until('it was scrubbed', lambda: self.cluster.cli(
            'mount', 'stat', 'store-1', '-o', 'json').json['scrub']['state'] ==
            'SCRUB_STATE_DONE')
        self.assertEqual('IMAGE_HEALTH_HEALTHY', self.cluster.cli(
            'image', 'stat', os.path.basename(path), '-o', 'json'
        ).json['health'])
        self.assertEqual(before, self.states())

    def test_a_bind_mount_is_the_same_directory(self):
        if os.environ.get('PREDELLA_MOUNT_NAMESPACE') != '1':
            self.skipTest('needs a mount namespace')
        self.write(adopt.TAKE)
        self.start()
        bound = os.path.join(self.top, 'bound')
        os.mkdir(bound)
        subprocess.run(['mount', '--bind', self.old, bound], check=True)
        self.addCleanup(subprocess.run, ['umount', '-l', bound], check=False)
        found, again = self.look(self.old, bound)
        self.assertEqual([(bound, self.old)], again)
        self.assertEqual([adopt.TAKE], [one.kind for one in found])
        # By that path alone it is the mount as well.
        found, again = self.look(bound)
        self.assertEqual(([], [adopt.TAKE]),
                         (again, [one.kind for one in found]))


if __name__ == '__main__':
    unittest.main()
