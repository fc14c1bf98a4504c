"""Disks whose power can be cut: a file with a file system on a loop device.

The cut is the file system's own shutdown call without a flush of its log:
what was not synced is gone, as a power cut leaves it, and every operation
fails until it is mounted again. Whoever uses the disk is frozen first, as a
power cut would: ext4 answers an fsync that is on its way at that moment with
success though its bytes are gone. Needs root and a mount namespace of its own
(run_in_namespace.sh)."""
import fcntl
import mmap
import os
import shutil
import struct
import subprocess
import tempfile

from cluster import wait_until
from namespace_mounts import need_namespace

# _IOR('X', 125, __u32), of ext4 and XFS alike; 2: without a flush of the log,
# 0: all of it is on the disk first.
SHUTDOWN = (2 << 30) | (4 << 16) | (ord('X') << 8) | 125
NO_FLUSH = struct.pack('I', 2)
FLUSH = struct.pack('I', 0)


def build_shim(test):
    top = tempfile.mkdtemp(prefix='ps-', dir='/tmp')
    test.addCleanup(shutil.rmtree, top)
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                          'power_shim.c')
    shim = os.path.join(top, 'shim.so')
    subprocess.run(['cc', '-shared', '-fPIC', '-O1', '-o', shim, source,
                    '-ldl'], check=True)
    return shim


def skip_syncs(test, kind):
    """The environment of a process that leaves syncs out and believes that
    they were made: of 'directories', of 'files', or 'all'."""
    return {'LD_PRELOAD': build_shim(test), 'PREDELLA_SKIP_SYNCS': kind}


class CrashPoint:
    """The power of `disk` fails before the n-th call of a process that
    changes something there."""

    def __init__(self, test, disk):
        with tempfile.NamedTemporaryFile(prefix='pc-', dir='/tmp') as f:
            f.write(bytes(16))
            f.flush()
            self.shared = mmap.mmap(f.fileno(), 16)
            # The process opens it by this name, now or at a restart.
            self.path = f.name + '.count'
            os.link(f.name, self.path)
        test.addCleanup(os.unlink, self.path)
        self.env = {'LD_PRELOAD': build_shim(test),
                    'PREDELLA_CRASH_DISK': disk.path,
                    'PREDELLA_CRASH_COUNT': self.path}

    def arm(self, n):
        self.shared[:8] = struct.pack('q', n)

    def disarm(self, daemon):
        """Whether it was hit: a thread that counted down to the cut may be
        making it still."""
        self.arm(0)

        def decided():
            inside, = struct.unpack('q', self.shared[8:])
            return inside == 0 or not daemon.running()
        wait_until(f'{daemon.name} is cut or goes on', decided)
        if daemon.running():
            return False
        self.shared[8:] = struct.pack('q', 0)  # nobody is inside any more
        return True


class Disk:
    """A file system of its own at `path`."""

    def __init__(self, kind, size_mib=1024):
        self.kind = kind
        self.top = tempfile.mkdtemp(prefix='pd-', dir='/tmp')
        self.path = os.path.join(self.top, 'm')
        self.image = os.path.join(self.top, kind + '.img')
        self.mounted = False
        self.cuts = 0
        os.mkdir(self.path)
        with open(self.image, 'wb') as f:
            f.truncate(size_mib << 20)
        force = '-F' if kind == 'ext4' else '-f'
        subprocess.run([f'mkfs.{kind}', '-q', force, self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(['mount', '-o', 'loop', self.image, self.path],
                       check=True)
        self.mounted = True

    def cut(self, user):
        """The power fails: the process `user` does not outlive it."""
        user.pause()
        self.shut_down(NO_FLUSH)
        user.kill()

    def die(self):
        """The disk is gone, with all that it was given."""
        self.shut_down(FLUSH)

    def shut_down(self, how):
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, how)
        finally:
            os.close(fd)
        self.cuts += 1

    def remount(self):
        """As the disk was left; nobody may use it any more."""
        subprocess.run(['umount', self.path], check=True)
        self.mounted = False
        self.mount()

    def close(self):
        if self.mounted:
            subprocess.run(['umount', '-l', self.path], check=False)
        shutil.rmtree(self.top, ignore_errors=True)


def need_disks(test, *kinds):
    """Skips the test, and says why, where such disks cannot be had."""
    need_namespace(test)
    for kind in kinds:
        if shutil.which(f'mkfs.{kind}') is None:
            test.skipTest(f'needs mkfs.{kind} (scripts/setup --test)')
    try:
        for kind in kinds:
            Disk(kind, 320).close()
    except (OSError, subprocess.CalledProcessError) as error:
        test.skipTest(f'needs loop devices with {", ".join(kinds)}: {error}')
