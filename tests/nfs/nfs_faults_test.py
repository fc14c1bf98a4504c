"""The server of a mount hangs, forgets it, or is full: it is named in time,
costs nobody else anything, and heals by itself."""
import os
import subprocess
import time
import unittest

from cluster import MIB, digest, random_bytes, wait_until
from nfs_case import KIND, LOAD, NfsTest
from nfs_server import sh

ROUNDS = 2  # of a hang, in different ways
SOFT_WATCHED = 15  # seconds


class HangTest(NfsTest):
    def test_the_server_hangs(self):
        self.start(self.mount(), local=1)
        image, _ = self.put_on('store-1')
        stops = (('its packets are dropped', self.server.drop),
                 ('its threads are gone', self.server.stop))
        for what, stop in stops[:ROUNDS]:
            stop()
            self.check_hang(what, image)
            dropped = self.server.dropped()
            if stop == self.server.drop:
                self.assertGreater(dropped, 0)
            self.server.well()
            print(f'{what} ({dropped} packets): healed in '
                  f'{self.wait_heal():.1f} s')
            self.injected += 1
            self.check_stored()
        self.promised('servers that hang', ROUNDS)

    def check_hang(self, what, image):
        # A call of a soft mount comes back with EIO, the first not before the
        # connection was tried for a while: it may hang for the agent, too.
        states = ('HUNG',) if KIND == 'hard' else ('HUNG', 'SUSPECT', 'FAILED')
        seen, took = self.wait_health(states, 10 + LOAD)
        print(f'{what}: {seen} after {took:.1f} s')
        for _ in range(3):
            _, took = self.put_on('store-2')
            self.assertLess(took, 10)
        start = time.monotonic()
        result = self.cluster.cli('image', 'get', image, check=False)
        took = time.monotonic() - start
        self.assertEqual(result.code, 4, result.err)
        self.assertRegex(result.err, 'MOUNT_STALLED' if KIND == 'hard'
                         else 'MOUNT_STALLED|MOUNT_FAILED')
        print(f'read refused in {took:.1f} s: {result.err.strip()[:100]}')
        self.assertLess(took, 5 if KIND == 'hard' else 60)
        status = self.cluster.cli('cluster', 'status', check=False).text
        self.assertRegex(status, '|'.join('MOUNT_' + s for s in states))
        if KIND == 'soft':
            self.check_soft(what, states)

    def check_soft(self, what, states):
        """Calls come back by and by: what is shown meanwhile."""
        shown = []
        end = time.monotonic() + SOFT_WATCHED
        while time.monotonic() < end:
            seen = self.cluster.cli('mount', 'ls', '-o', 'json').json['mounts']
            health = [m['health'] for m in seen
                      if m['name'] == 'mounts/store-1'][0][len('HEALTH_'):]
            if health not in shown[-1:]:
                shown.append(health)
        print(f'{what}: then {", ".join(shown)}')
        self.assertLessEqual(set(shown), set(states))


class StaleTest(NfsTest):
    """What the client has open is gone, or another one, on the server."""

    def gone(self, what):
        # SUSPECT by the first call that fails, if that is not the check of
        # the identity.
        seen, took = self.wait_health(('SUSPECT', 'ABSENT'), 2 + LOAD)
        print(f'{what}: {seen} after {took:.1f} s')
        self.wait_health(('ABSENT',), 20)
        self.put_on('store-2')
        self.injected += 1

    def test_export_under_another_fsid(self):
        mount = self.mount()
        self.start(mount, local=1)
        self.put_on('store-1')
        mount.export.withdraw()
        mount.export.publish(900)
        self.gone('another fsid')
        before = mount.export.files()
        self.put_on('store-2')
        self.assertEqual(mount.export.files(), before)
        mount.export.withdraw()
        mount.export.publish()
        print(f'healed in {self.wait_heal():.1f} s')
        self.put_on('store-1')
        self.check_stored()
        self.promised('fsid changed', 1)

    def test_another_file_system_in_its_place(self):
        # The handle of the root is good there, too: the client sees no error.
        mount = self.mount(whole=True)
        self.start(mount, local=1)
        self.put_on('store-1')
        export = mount.export
        export.withdraw()
        sh('umount', '-l', export.disk)
        blank = export.image + '.blank'
        export.make(blank)
        self.addCleanup(os.unlink, blank)
        sh('mount', '-o', 'loop', blank, export.disk)
        export.publish()
        self.gone('another file system')
        self.put_on('store-2')
        self.assertEqual(export.files(), [])
        self.assertEqual(os.listdir(export.disk), ['lost+found'])
        export.withdraw()
        sh('umount', '-l', export.disk)
        sh('mount', '-o', 'loop', export.image, export.disk)
        export.publish()
        print(f'healed in {self.wait_heal():.1f} s')
        self.put_on('store-1')
        self.check_stored()
        self.promised('file system exchanged', 1)

    def test_directory_removed_and_made_again(self):
        mount = self.mount()
        self.start(mount, local=1)
        self.put_on('store-1')
        path = mount.export.path
        copy = path + '.copy'
        sh('cp', '-a', path, copy)
        sh('rm', '-rf', path)
        os.mkdir(path)
        self.gone('directory made again')
        self.put_on('store-2')
        self.assertEqual(mount.export.files(), [])
        # Put back from a copy; the client has to mount it again.
        os.rmdir(path)
        os.rename(copy, path)
        mount.remove()
        mount.mount()
        print(f'healed in {self.wait_heal():.1f} s')
        self.put_on('store-1')
        self.check_stored()
        self.promised('directory removed', 1)


class FullTest(NfsTest):
    """The client is told late: it took the bytes."""

    def fill(self, export):
        """By others, beside the agent."""
        path = os.path.join(export.disk, 'other')
        subprocess.run(['dd', 'if=/dev/zero', f'of={path}', 'bs=1M'],
                       check=False, capture_output=True)
        status = os.statvfs(export.disk)
        self.assertLess(status.f_bavail * status.f_frsize, MIB)
        self.injected += 1
        return path

    def upload_into_full(self, mount):
        """(exit code, image, digest, words) of an upload under which its
        mount becomes full."""
        data = random_bytes(12 * MIB, self.rng.getrandbits(32))
        upload = self.cluster.spawn_cli('image', 'put', '-')
        upload.stdin.write(data[:2 * MIB])
        upload.stdin.flush()
        wait_until('it is under way', lambda: [
            f for f in mount.export.files() if 'inflight' in f])
        other = self.fill(mount.export)
        out, err = upload.communicate(data[2 * MIB:], timeout=150)
        image = out.decode().split()[-1] if upload.returncode == 0 else None
        return upload.returncode, image, digest(data), err.decode(), other

    def settled(self, mount):
        wait_until('nothing is left of it', lambda: not [
            f for f in mount.export.files() if 'inflight' in f])

    def test_full_under_an_upload(self):
        mount = self.mount(mib=40)
        self.start(mount, local=1)
        self.put_on('store-1')
        code, image, want, words, other = self.upload_into_full(mount)
        # What the client of NFS had not sent is lost there, and what an agent
        # never called safe its client holds: also one that reads a pipe.
        self.assertEqual(code, 0, words)
        self.assertEqual(self.cluster.where(image), ['store-2'])
        self.stored[image] = want
        self.settled(mount)
        self.assertEqual(self.health(), 'ONLINE')
        self.put_on('store-2')
        os.unlink(other)
        # Nowhere to go: refused, and nothing is left.
        self.cluster.cli('mount', 'cordon', 'store-2')
        wait_until('it takes images again',
                   lambda: self.put(check=False)[0] == 0, 30)
        code, image, _, words, other = self.upload_into_full(mount)
        self.assertNotEqual(code, 0)
        self.assertRegex(
            words, 'the mount filled up|NO_SPACE_IN_CLUSTER|MOUNT_FULL')
        print(f'refused: {words.strip()[:160]}')
        self.settled(mount)
        os.unlink(other)
        wait_until('it takes images again',
                   lambda: self.put(check=False)[0] == 0, 30)
        self.wait_heal()
        self.check_stored()
        files = [f for f in mount.export.files() if '/' not in f]
        self.assertEqual(set(files) - set(self.stored), set())
        self.promised('full exports', 2)


if __name__ == '__main__':
    unittest.main(verbosity=2)
