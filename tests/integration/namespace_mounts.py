"""Small file systems for tests of disks; see run_in_namespace.sh."""
import os
import subprocess
import tempfile


def need_namespace(test):
    if os.environ.get('PREDELLA_MOUNT_NAMESPACE') != '1':
        test.skipTest('needs root and a mount namespace')


def make_tmpfs(test, *sizes_mib, inodes=None):
    """Directories of these sizes, gone when the test ends."""
    top = tempfile.mkdtemp(prefix='pf-', dir='/tmp')
    test.addCleanup(os.rmdir, top)
    paths = []
    for i, size in enumerate(sizes_mib):
        path = os.path.join(top, f'd{i}')
        os.mkdir(path)
        test.addCleanup(os.rmdir, path)
        options = f'size={size}m'
        if inodes is not None:
            options += f',nr_inodes={inodes}'
        subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', path],
                       check=True)
        test.addCleanup(subprocess.run, ['umount', '-l', path], check=False)
        paths.append(path)
    return paths


def make_ext4(test, mib, *options):
    """A small ext4 on a loop device, both gone when the test ends."""
    top = tempfile.mkdtemp(prefix='pf-', dir='/tmp')
    test.addCleanup(os.rmdir, top)
    image, path = os.path.join(top, 'image'), os.path.join(top, 'm')
    with open(image, 'wb') as f:
        f.truncate(mib << 20)
    test.addCleanup(os.unlink, image)
    os.mkdir(path)
    test.addCleanup(os.rmdir, path)
    subprocess.run(['mkfs.ext4', '-q', '-F', *options, image], check=True)
    # -o loop: the device goes with the mount.
    mounted = subprocess.run(['mount', '-o', 'loop', image, path], check=False,
                             capture_output=True)
    if mounted.returncode != 0:
        test.skipTest('no loop mounts here: ' + mounted.stderr.decode())
    test.addCleanup(subprocess.run, ['umount', '-l', path], check=False)
    return path


def fill(path, leave=0):
    """Writes the file `path` until `leave` bytes are free; returns its size."""
    written = 0
    with open(path, 'wb', buffering=0) as f:
        while True:
            status = os.statvfs(path)
            free = status.f_bavail * status.f_frsize - leave
            if free <= 0:
                return written
            try:
                written += f.write(b'x' * min(free, 1 << 20))
            except OSError:
                return written
