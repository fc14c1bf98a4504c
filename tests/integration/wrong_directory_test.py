"""Another directory comes under an agent's path while uploads run, and comes
back: the agent says so within a second, and writes not one byte into it."""
import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import time
import unittest

from cluster import MIB, Cluster, binary, random_bytes, run, wait_until
from namespace_mounts import need_namespace
from upload_faults_test import Upload

SEED = int(os.environ.get('PREDELLA_SEED', '9'))
KINDS = ('umount', 'lazy umount', 'empty mount over', 'other disk', 'old clone',
         'read-only')
ROUNDS = int(os.environ.get('PREDELLA_G9_ROUNDS', '12'))
# The design says 1 s; the rest is for a loaded machine and the CLI's start.
ABSENT_WITHIN = 1.0
CLI_TIME = 1.0


def mount(*args):
    subprocess.run(['mount', *args], check=True)


def umount(*args):
    subprocess.run(['umount', *args], check=True)


def fingerprint(top):
    """Every name, mode, time of change and byte below a directory."""
    out = []
    for directory, names, files in sorted(os.walk(top)):
        for name in sorted(names) + sorted(files):
            path = os.path.join(directory, name)
            st = os.lstat(path)
            what = [os.path.relpath(path, top), st.st_mode, st.st_mtime_ns,
                    st.st_ino, st.st_size]
            if name in files:
                with open(path, 'rb') as f:
                    what.append(hashlib.sha256(f.read()).hexdigest())
            out.append(tuple(what))
    return out


class WrongDirectoryTest(unittest.TestCase):
    def setUp(self):
        need_namespace(self)
        self.top = tempfile.mkdtemp(prefix='pw-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, True)
        self.point = os.path.join(self.top, 'store-1')
        self.disk = os.path.join(self.top, 'disk')
        self.clone = os.path.join(self.top, 'clone')
        self.other = os.path.join(self.top, 'other')
        spare = os.path.join(self.top, 'store-2')
        for path in (self.point, self.disk, self.clone, self.other, spare):
            os.mkdir(path)
        # What an operator's cleaner left below the mount point.
        with open(os.path.join(self.point, 'below'), 'wb') as f:
            f.write(b'nothing of predella')
        self.plug()
        self.addCleanup(self.unplug_all)
        self.read_only = os.path.join(self.top, 'read-only')
        os.mkdir(self.read_only)
        mount('--bind', self.disk, self.read_only)
        self.addCleanup(umount, '-l', self.read_only)
        mount('-o', 'remount,bind,ro', self.read_only)
        self.cluster = Cluster((100, 200), directories=[self.point, spare])
        self.addCleanup(self._stop)
        self.cluster.start()
        result = run([binary('predella'), 'mount', 'init', self.other,
                      '--name', 'store-9'])
        self.assertEqual(result.code, 0, result.err)

    def _stop(self):
        if self._outcome is not None and not self._outcome.success:
            self.cluster.print_logs()
        self.cluster.stop()

    def plug(self):
        mount('--bind', self.disk, self.point)

    def unplug_all(self):
        while subprocess.run(['umount', '-l', self.point], check=False,
                             stderr=subprocess.DEVNULL).returncode == 0:
            pass

    def health(self, name='store-1'):
        result = self.cluster.cli('mount', 'ls', '-o', 'json')
        for m in result.json['mounts']:
            if m['name'] == f'mounts/{name}':
                return m['health'].replace('HEALTH_', '')
        return None

    def inject(self, kind):
        """Returns the directory that the path leads to now, where one of its
        own, and how the mount comes back."""
        if kind in ('umount', 'lazy umount'):
            # Never without -l while the agent has it open: that is EBUSY.
            if kind == 'umount':
                busy = subprocess.run(['umount', self.point], check=False,
                                      stderr=subprocess.DEVNULL)
                self.assertNotEqual(busy.returncode, 0,
                                    'the agent holds its root open')
            umount('-l', self.point)
            return self.point, self.plug
        if kind == 'empty mount over':
            mount('-t', 'tmpfs', '-o', 'size=8m', 'none', self.point)
        elif kind == 'other disk':
            mount('--bind', self.other, self.point)
        elif kind == 'old clone':
            mount('--bind', self.clone, self.point)
        else:  # the same file system, read-only, over it
            # Read-only before it is seen there: the agent opens it at once.
            mount('--bind', self.read_only, self.point)
            return None, lambda: umount('-l', self.point)
        return self.point, lambda: umount('-l', self.point)

    def wait_health(self, wanted, timeout):
        began = time.monotonic()
        wait_until(f'store-1 is one of {wanted}, and is {self.health()}',
                   lambda: self.health() in wanted, timeout)
        return time.monotonic() - began

    def test_not_one_byte_goes_into_another_directory(self):
        rng = random.Random(SEED)
        kinds = [k for _ in range(-(-ROUNDS // len(KINDS))) for k in KINDS]
        rng.shuffle(kinds)
        kinds = kinds[:ROUNDS]
        kept = {}
        injected = {}
        slowest = 0.0
        for i, kind in enumerate(kinds):
            what = f'seed {SEED}, round {i}: {kind}'
            if kind == 'old clone':
                shutil.rmtree(self.clone)
                shutil.copytree(self.disk, self.clone)
            # The clone is older than what the mount learns from here on.
            data = random_bytes(2 * MIB, SEED * 1000 + i)
            kept[self.cluster.put(data)] = data
            time.sleep(1.2)  # the fence is synced within a second
            upload = Upload(self.cluster)
            upload.feed(random_bytes(8 * MIB, i))
            wait_until('bytes arrive',
                       lambda: self.cluster.inflight('store-1'))
            began = time.monotonic()
            below, back = self.inject(kind)
            # Bytes go on coming, towards whatever lies there now.
            upload.feed(random_bytes(4 * MIB, i))
            before = fingerprint(below) if below else None
            wanted = ('READ_ONLY',) if kind == 'read-only' else ('ABSENT',)
            # Opened again, where it is the same mount: its lock must be free.
            within = 15 if kind == 'read-only' else ABSENT_WITHIN + CLI_TIME
            self.wait_health(wanted, within)
            took = time.monotonic() - began
            if kind != 'read-only':
                slowest = max(slowest, took)
                self.assertLess(took, ABSENT_WITHIN + CLI_TIME, what)
            # Images go elsewhere meanwhile, at once.
            other = random_bytes(MIB, SEED * 2000 + i)
            image = self.cluster.put(other)
            self.assertEqual(self.cluster.where(image), ['store-2'], what)
            kept[image] = other
            time.sleep(rng.uniform(0.1, 2.5))  # it tries to open, more than once
            if below:
                self.assertEqual(fingerprint(below), before, what)
            upload.process.kill()
            upload.process.communicate()
            back()
            injected[kind] = injected.get(kind, 0) + 1
            self.cluster.wait_ready(timeout=20)
            # Each would hold its space for a day, until no room was left.
            for left in self.cluster.cli('upload', 'ls', '-o',
                                         'json').json.get('uploads', ()):
                self.cluster.cli('upload', 'abort',
                                 left['name'].split('/')[-1], check=False)
        self.assertEqual(os.listdir(self.other), ['.predella'])
        for image, data in kept.items():
            self.assertEqual(hashlib.sha256(self.cluster.get(image)).digest(),
                             hashlib.sha256(data).digest(), image)
        print(f'wrong directory: seed {SEED}, {sum(injected.values())} rounds '
              f'{injected}, {len(kept)} images whole, ABSENT after at most '
              f'{slowest:.2f} s')
        self.assertGreaterEqual(sum(injected.values()), ROUNDS)
        if ROUNDS >= len(KINDS):
            self.assertEqual(sorted(injected), sorted(KINDS))

    def test_an_older_copy_that_comes_while_the_agent_is_down(self):
        kept = random_bytes(MIB, SEED * 3000)
        image = self.cluster.put(kept)
        agent = self.cluster.agents['store-1']
        agent.kill()
        shutil.rmtree(self.clone)
        shutil.copytree(self.disk, self.clone)
        agent.start()
        self.cluster.wait_ready()
        later = self.cluster.put(random_bytes(MIB, SEED * 3001))
        self.assertEqual(self.cluster.where(later), ['store-1'])
        agent.kill()
        mount('--bind', self.clone, self.point)
        agent.start()
        status = lambda: self.cluster.cli('cluster', 'status', check=False).text
        wait_until('it is named', lambda: 'MOUNT_STALE' in status())
        self.assertRegex(status(), r'1 \(1 MiB\) of the images there came later')
        # Images go elsewhere, and what is away is not called missing.
        other = self.cluster.put(random_bytes(MIB, SEED * 3002))
        self.assertEqual(self.cluster.where(other), ['store-2'])
        self.assertNotIn('COPIES_MISSING', status())
        self.assertEqual(os.listdir(os.path.join(self.clone, '.predella',
                                                 'inflight')), [])
        # The newest directory, without a word to anybody.
        umount('-l', self.point)
        agent.kill()
        agent.start()
        self.cluster.wait_ready(timeout=20)
        self.assertNotIn('MOUNT_STALE', status())
        # Or the copy, where it is all there is.
        agent.kill()
        mount('--bind', self.clone, self.point)
        agent.start()
        wait_until('it is named', lambda: 'MOUNT_STALE' in status())
        self.cluster.cli('mount', 'confirm', 'store-1', '--dry-run')
        self.cluster.cli('mount', 'confirm', 'store-1')
        self.cluster.wait_ready(timeout=20)
        wait_until('what it lacks is named',
                   lambda: 'COPIES_MISSING' in status())
        self.assertEqual(self.cluster.get(image), kept)
        self.assertIn(later, self.cluster.cli(
            'image', 'ls', '--degraded').text)
        # And then that is the mount, and the other one is older.
        time.sleep(3)  # the coordinator has heard what is synced there
        agent.kill()
        umount('-l', self.point)
        agent.start()
        wait_until('it is named', lambda: 'MOUNT_STALE' in status())

    def test_a_directory_that_is_not_mounted_yet_is_shown_and_taken(self):
        agent = self.cluster.agents['store-1']
        agent.kill()
        self.unplug_all()
        before = fingerprint(self.point)
        agent.start()
        self.wait_health(('ABSENT', 'UNREACHABLE'), 10)
        wait_until('it is named', lambda: 'store-1' in self.cluster.cli(
            'cluster', 'status', check=False).text, 10)
        self.assertEqual(fingerprint(self.point), before)
        self.plug()
        self.cluster.wait_ready(timeout=10)


if __name__ == '__main__':
    unittest.main()
