"""The fault file system itself: it passes everything through, and each fault
arrives. Needs root and FUSE."""
import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import threading
import time
import unittest

from cluster import MIB, random_bytes, wait_until
from fault_mount import FaultMount, need_faultfs

RENAME_NOREPLACE = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def rename_noreplace(source, target):
    if LIBC.renameat2(-100, source.encode(), -100, target.encode(),
                      RENAME_NOREPLACE) != 0:
        raise OSError(ctypes.get_errno(), 'renameat2', source)


class FaultfsTest(unittest.TestCase):
    def setUp(self):
        need_faultfs(self)
        self.mount = FaultMount(self)
        self.file = os.path.join(self.mount.path, 'f')

    def write(self, data, path=None):
        with open(path or self.file, 'wb', buffering=0) as f:
            f.write(data)
            os.fsync(f.fileno())

    def read(self, path=None):
        with open(path or self.file, 'rb') as f:
            return f.read()

    def backing(self, name='f'):
        return os.path.join(self.mount.backing, name)

    def assert_errno(self, error, call, *args):
        with self.assertRaises(OSError) as caught:
            call(*args)
        self.assertEqual(caught.exception.errno, error)

    def test_passes_through(self):
        data = random_bytes(3 * MIB + 5, 1)
        self.write(data)
        self.assertEqual(self.read(), data)
        self.assertEqual(self.read(self.backing()), data)
        self.assertEqual(os.stat(self.file).st_ino,
                         os.stat(self.backing()).st_ino)
        here, there = (os.statvfs(p) for p in (self.mount.path,
                                               self.mount.backing))
        self.assertEqual((here.f_blocks, here.f_files),
                         (there.f_blocks, there.f_files))
        os.mkdir(os.path.join(self.mount.path, 'd'))
        other = os.path.join(self.mount.path, 'd', 'g')
        self.write(b'other', other)
        self.assert_errno(errno.EEXIST, rename_noreplace, self.file, other)
        os.unlink(other)
        rename_noreplace(self.file, other)
        os.link(other, self.file)
        self.assertEqual(os.stat(self.file).st_nlink, 2)
        self.assertEqual(sorted(os.listdir(self.mount.path)), ['d', 'f'])
        os.symlink('f', self.file + '.link')
        self.assertEqual(os.readlink(self.file + '.link'), 'f')
        os.chmod(self.file, 0o640)
        os.chown(self.file, 0, 12)
        os.utime(self.file, (5, 6))
        st = os.stat(self.backing())
        self.assertEqual((st.st_mode & 0o777, st.st_gid, st.st_mtime),
                         (0o640, 12, 6))
        os.truncate(self.file, 7)
        with open(self.file, 'r+b') as f:
            os.posix_fallocate(f.fileno(), 0, MIB)
            os.unlink(self.file)
            self.assertEqual(f.read(7), data[:7])
        root = os.open(self.mount.path, os.O_RDONLY)
        os.fsync(root)
        os.close(root)
        os.unlink(other)
        os.rmdir(os.path.dirname(other))

    def test_many_names(self):
        names = {f'{i:04}' for i in range(3000)}
        for name in names:
            open(self.backing(name), 'wb').close()
        self.assertEqual(set(os.listdir(self.mount.path)), names)

    def test_direct_reads_and_locks(self):
        self.write(bytes(8192))
        fd = os.open(self.file, os.O_RDONLY | os.O_DIRECT)
        self.assertEqual(os.readv(fd, [mmap.mmap(-1, 4096)]), 4096)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in (self.file, self.backing()):
            with open(path, 'rb') as f:
                self.assert_errno(errno.EAGAIN, fcntl.flock, f,
                                  fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        with open(self.file, 'rb') as f:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_each_operation_fails_as_told(self):
        self.write(b'x' * 100)
        os.mkdir(os.path.join(self.mount.path, 'd'))
        other = os.path.join(self.mount.path, 'other')
        held = os.open(self.file, os.O_RDWR)
        self.addCleanup(os.close, held)
        folder = os.open(self.mount.path, os.O_RDONLY)
        self.addCleanup(os.close, folder)
        calls = {
            'getattr': lambda: os.stat(self.file),
            'readdir': lambda: os.listdir(self.mount.path),
            'opendir': lambda: os.listdir(self.mount.path),
            'open': lambda: open(self.file, 'rb').close(),
            'create': lambda: open(other, 'wb').close(),
            'read': lambda: os.pread(held, 10, 0),
            'write': lambda: os.pwrite(held, b'y', 0),
            'flush': lambda: os.close(os.dup(held)),
            'fsync': lambda: os.fsync(held),
            'fdatasync': lambda: os.fdatasync(held),
            'fsyncdir': lambda: os.fsync(folder),
            'rename': lambda: os.rename(self.file, other),
            'link': lambda: os.link(self.file, other),
            'unlink': lambda: os.unlink(self.file),
            'mkdir': lambda: os.mkdir(other),
            'rmdir': lambda: os.rmdir(os.path.join(self.mount.path, 'd')),
            'symlink': lambda: os.symlink('x', other),
            'truncate': lambda: os.ftruncate(held, 5),
            'statfs': lambda: os.statvfs(self.mount.path),
            'chmod': lambda: os.fchmod(held, 0o600),
            'chown': lambda: os.fchown(held, 1, 1),
            'utimens': lambda: os.utime(self.file),
            'flock': lambda: fcntl.flock(held, fcntl.LOCK_SH)}
        for operation, call in calls.items():
            for error in (errno.EIO, errno.ESTALE):
                with self.subTest(operation=operation, error=error):
                    rule = self.mount.rule(operation,
                                           f'error:{errno.errorcode[error]}')
                    self.assert_errno(error, call)
                    self.assertGreater(self.mount.counts(rule)['injected'], 0)
                    self.mount.heal()
        self.assertEqual(self.read(), b'x' * 100)
        print(f'{2 * len(calls)} errors injected, each arrived')

    def test_data_is_changed_as_told(self):
        data = bytes(4096)
        self.mount.rule('write', 'corrupt', count=1)
        self.write(data)
        self.mount.heal()
        self.assertEqual(sum(a != b for a, b in zip(self.read(), data)), 1)
        self.write(data)
        self.mount.rule('read', 'corrupt', count=1)
        self.assertEqual(sum(a != b for a, b in zip(self.read(), data)), 1)
        self.assertEqual(self.read(), data)
        self.mount.heal()
        self.mount.rule('write', 'short', count=1)
        with open(self.file, 'wb', buffering=0) as f:
            self.assertEqual(f.write(data), 2048)
        self.mount.rule('write', 'lie', count=1)
        self.write(data, self.file + '2')
        self.assertEqual(os.stat(self.backing('f2')).st_size, 0)

    def test_short_reads_without_the_page_cache(self):
        mount = FaultMount(self, self.mount.backing, direct=True)
        self.write(bytes(4096))
        mount.rule('read', 'short')
        fd = os.open(os.path.join(mount.path, 'f'), os.O_RDONLY)
        self.assertEqual(len(os.read(fd, 4096)), 2048)
        os.close(fd)

    def test_skip_count_and_path(self):
        rule = self.mount.rule('unlink', 'error:EIO', path='*b', skip=1,
                               count=1)
        for name in ('a', 'b', 'c/b', 'd/b'):
            path = os.path.join(self.mount.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self.write(b'', path)
            if name == 'c/b':
                self.assert_errno(errno.EIO, os.unlink, path)
            else:
                os.unlink(path)
        self.assertEqual(self.mount.counts(rule),
                         {'matched': 3, 'injected': 1, 'waiting': 0})

    def test_delay(self):
        self.write(b'abc')
        self.mount.rule('open', 'delay:300')
        start = time.monotonic()
        self.read()
        self.assertGreaterEqual(time.monotonic() - start, 0.3)

    def test_hang_and_release(self):
        self.write(b'abc')
        rule = self.mount.rule('*', 'hang')
        threads = [threading.Thread(target=self.read) for _ in range(40)]
        for thread in threads:
            thread.start()
        wait_until('all hang', lambda: self.mount.counts(rule)['waiting'] >= 1)
        self.assertTrue(all(t.is_alive() for t in threads))
        self.mount.heal()
        for thread in threads:
            thread.join(10)
        self.assertFalse(any(t.is_alive() for t in threads))

    def test_nothing_is_left_of_a_hung_mount(self):
        self.write(b'abc')
        rule = self.mount.rule('*', 'hang')
        reader = subprocess.Popen(['cat', self.file],
                                  stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        wait_until('it hangs', lambda: self.mount.counts(rule)['waiting'] > 0)
        path, process = self.mount.path, self.mount.process
        start = time.monotonic()
        self.mount.remove()
        reader.wait(10)
        self.assertLess(time.monotonic() - start, 5)
        self.assertIsNotNone(process.poll())
        with open('/proc/mounts', encoding='utf-8') as mounts:
            self.assertNotIn(path, mounts.read())
        self.assertFalse(os.path.exists(path))


if __name__ == '__main__':
    unittest.main(verbosity=2)
