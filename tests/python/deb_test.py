"""The Debian package of the driver: what is in it, what it needs, and an
installation by dpkg in a root of its own that lies over this one. That needs
root and overlayfs, in a mount namespace (run_in_namespace.sh)."""
import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from wheel_test import NATIVE
from wheel_test import PROGRAM
from wheel_test import SOURCE

NAME = 'python3-glance-store-predella'
PACKAGES = 'usr/lib/python3/dist-packages'


def output(*argv, **options):
    return subprocess.run(argv, check=True, capture_output=True, text=True,
                          **options).stdout


class DebTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.top = tempfile.mkdtemp(prefix='pr-deb-', dir='/tmp')
        cls.addClassCleanup(shutil.rmtree, cls.top, ignore_errors=True)
        built = subprocess.run(
            [os.path.join(SOURCE, 'scripts', 'build-deb'), cls.top],
            env={**os.environ, 'PREDELLA_BUILD_DIR': os.path.dirname(NATIVE)},
            check=False, capture_output=True, text=True)
        if built.returncode != 0:
            raise AssertionError(built.stdout + built.stderr)
        cls.package = built.stdout.splitlines()[-1]

    def field(self, name):
        return output('dpkg-deb', '--field', self.package, name).strip()

    def unpacked(self):
        root = os.path.join(self.top, self.id())
        subprocess.run(['dpkg-deb', '--raw-extract', self.package, root],
                       check=True)
        return root

    def test_what_is_in_it(self):
        self.assertEqual(NAME, self.field('Package'))
        listed = output('dpkg-deb', '--contents', self.package).splitlines()
        paths = []
        for line in listed:
            mode, owner, _, _, _, path = line.split(None, 5)
            self.assertEqual('root/root', owner, line)
            self.assertNotIn('w', mode[4:], line)
            paths.append(path)
        files = [path for path in paths if not path.endswith('/')]
        for path in files:
            self.assertRegex(
                path, rf'^\./({PACKAGES}/glance_store_predella(-[0-9.]+'
                rf'\.dist-info)?/|{PACKAGES}/predella_native\.[^/]*\.so$|'
                rf'usr/bin/predella-glance$|usr/share/doc/{NAME}/)')
            self.assertFalse(path.endswith('.pyc'), path)
        package = os.path.join(SOURCE, 'client', 'python',
                               'glance_store_predella')
        for name in os.listdir(package):
            if name.endswith('.py'):
                self.assertIn(
                    f'./{PACKAGES}/glance_store_predella/{name}', files)
        root = self.unpacked()
        output('md5sum', '--check', '--quiet', 'DEBIAN/md5sums', cwd=root)
        with open(os.path.join(root, 'DEBIAN', 'md5sums'),
                  encoding='utf-8') as stream:
            self.assertEqual(len(files), len(stream.readlines()))

    def test_what_it_needs(self):
        depends = self.field('Depends')
        for wanted in ('python3 (<< 3.12)', 'python3-glance-store (>= 4.1.0)',
                       'python3-oslo.config', 'python3-sqlalchemy'):
            self.assertIn(wanted, depends)
        # Whose libraries the module names, by what the linker says.
        module, = glob.glob(os.path.join(self.unpacked(), PACKAGES, '*.so'))
        needed = re.findall(r'NEEDED +(\S+)',
                            output('objdump', '--private-headers', module))
        self.assertTrue([one for one in needed if 'grpc++' in one], needed)
        names = {one.split()[0] for one in depends.split(',')}
        for library in needed:
            owners = {line.split(':')[0] for line in output(
                'dpkg-query', '--search', f'*/{library}').splitlines()}
            provided = output('dpkg-query', '--show', '--showformat',
                              '${Provides},', *owners)
            owners.update(one.split()[0] for one in provided.split(',')
                          if one.strip())
            self.assertTrue(owners & names, f'{library} of {owners}: {names}')
        # All of it is to be had: nothing is installed.
        said = output('apt-get', 'install', '--simulate', self.package)
        self.assertIn(f'Inst {NAME}', said)

    def test_installed_and_removed(self):
        if os.environ.get('PREDELLA_MOUNT_NAMESPACE') != '1':
            self.skipTest('needs root and a mount namespace')
        top = os.path.join(self.top, 'overlay')
        os.mkdir(top)
        subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', top], check=True)
        self.addCleanup(subprocess.run, ['umount', '-R', '-l', top],
                        check=False)
        for name in ('upper', 'work', 'root'):
            os.mkdir(os.path.join(top, name))
        root = os.path.join(top, 'root')
        mounted = subprocess.run(
            ['mount', '-t', 'overlay', 'overlay', '-o', f'lowerdir=/,'
             f'upperdir={top}/upper,workdir={top}/work', root], check=False,
            capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f'no overlayfs here: {mounted.stderr}')
        for name in ('dev', 'proc'):
            subprocess.run(['mount', '--rbind', f'/{name}',
                            os.path.join(root, name)], check=True)
        shutil.copy(self.package, os.path.join(root, 'tmp', 'x.deb'))

        def inside(*argv, **env):
            done = subprocess.run(
                ['chroot', root, *argv], check=False, capture_output=True,
                text=True, env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
                                'HOME': '/tmp', **env})
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
            return done.stdout

        inside('dpkg', '--install', '/tmp/x.deb')
        self.assertEqual('installed', inside(
            'dpkg-query', '-W', '-f', '${db:Status-Status}', NAME))
        self.assertEqual('', inside('dpkg', '--verify', NAME))
        compiled = os.path.join(root, PACKAGES, 'glance_store_predella',
                                '__pycache__')
        self.assertTrue(os.listdir(compiled))
        self.assertIn('predella_endpoint', inside(
            'python3', '-W', 'ignore', '-c', PROGRAM, f'/{PACKAGES}'))
        self.assertIn('relocate', inside('predella-glance', '--help'))
        inside('dpkg', '--remove', NAME)
        self.assertFalse(os.path.exists(os.path.dirname(compiled)))


if __name__ == '__main__':
    unittest.main()
