"""The examples for installers, run: predella serve as its unit and the drop-in
have it, as the user that sysusers.d makes, and the driver in what a container
is here: that user's number, the directory of the sockets, and no other part of
/var/lib. Needs root in a mount namespace."""
import configparser
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import paths
import yaml

sys.path.insert(0, os.path.join(paths.SOURCE, 'tests', 'integration'))

from cluster import binary  # noqa: E402
from cluster import wait_until  # noqa: E402

PACKAGING = os.path.join(paths.SOURCE, 'packaging')
EXAMPLES = os.path.join(PACKAGING, 'examples')
STATE = '/var/lib/predella'
# What glance-api does with its configuration, one upload and one download.
GLANCE = '''
import sys
sys.path[:0] = sys.argv[2:]
from glance_store import location, multi_backend
from oslo_config import cfg
conf = cfg.ConfigOpts()
conf([], project='glance', default_config_files=[sys.argv[1]])
conf.register_opt(cfg.DictOpt('enabled_backends'))
multi_backend.register_store_opts(conf)
multi_backend.create_multi_stores(conf)
store = location.SCHEME_TO_CLS_BACKEND_MAP['predella']['fast']['store']
import io
image = '7f4c0000-0000-4000-8000-000000000001'
try:
    url = store.add(image, io.BytesIO(b'of a glance'), 0, 'sha512')[0]
except Exception as e:
    sys.exit(f'{type(e).__name__}: {e}')
where = location.get_location_from_uri_and_backend(url, 'fast', conf=conf)
print(b''.join(store.get(where)[0]).decode())
'''


def unit(*parts):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(os.path.join(*parts), encoding='utf-8')
    return parser['Service']


def made_user(example):
    """(name, number) as sysusers.d has them."""
    with open(os.path.join(EXAMPLES, example, 'sysusers.d',
                           'predella-glance.conf'), encoding='utf-8') as f:
        line, = (one for one in f if not one.startswith('#'))
    _, name, number, *_ = line.split()
    return name, int(number)


class UserTest(unittest.TestCase):
    def test_users_are_those_of_the_containers(self):
        for example in ('kolla', 'openstack-helm'):
            name, _ = made_user(example)
            for option in ('User', 'Group'):
                self.assertEqual(name, unit(
                    EXAMPLES, example, 'predella-serve.service.d',
                    'glance.conf')[option])
        with open(os.path.join(EXAMPLES, 'openstack-helm', 'values.yaml'),
                  encoding='utf-8') as stream:
            pod = yaml.safe_load(stream)['pod']['security_context']['glance']
        self.assertEqual(made_user('openstack-helm')[1],
                         pod['pod']['runAsUser'])
        self.assertEqual('glance', unit(
            EXAMPLES, 'debian', 'predella-serve.service.d',
            'glance.conf')['User'])

    def test_systemd_makes_them(self):
        program = shutil.which('systemd-sysusers')
        if program is None or os.geteuid() != 0:
            self.skipTest('needs systemd-sysusers, and root')
        for example in ('kolla', 'openstack-helm'):
            name, number = made_user(example)
            with tempfile.TemporaryDirectory() as root:
                os.mkdir(os.path.join(root, 'etc'))
                subprocess.run(
                    [program, f'--root={root}', os.path.join(
                        EXAMPLES, example, 'sysusers.d',
                        'predella-glance.conf')], check=True)
                for file in ('passwd', 'group'):
                    with open(os.path.join(root, 'etc', file),
                              encoding='utf-8') as stream:
                        made = dict((line.split(':')[0], line.split(':')[2])
                                    for line in stream)
                    self.assertEqual(str(number), made[name])


class ContainerTest(unittest.TestCase):
    def setUp(self):
        if os.environ.get('PREDELLA_MOUNT_NAMESPACE') != '1':
            self.skipTest('needs root and a mount namespace')
        self.top = tempfile.mkdtemp(prefix='pr-user-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        os.chmod(self.top, 0o755)
        subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '/var/lib'],
                       check=True)
        self.addCleanup(subprocess.run, ['umount', '-l', '/var/lib'],
                        check=True)
        self.programs = os.path.join(self.top, 'bin')
        os.mkdir(self.programs)
        for name in ('predella', 'predella-agent', 'predella-coordinator'):
            shutil.copy(binary(name), self.programs)
        self.python = []
        for i, path in enumerate(paths.INSTALLED):
            self.python.append(os.path.join(self.top, f'python-{i}'))
            shutil.copytree(path, self.python[-1])
            os.chmod(self.python[-1], 0o755)

    def start(self, number):
        """predella serve as systemd starts it for this user."""
        service = unit(PACKAGING, 'systemd', 'predella-serve.service')
        os.mkdir(STATE, int(service['StateDirectoryMode'], 8))
        store = os.path.join(self.top, 'store-1')
        os.mkdir(store)
        for path in (STATE, store):
            os.chown(path, number, number)
        command = service['ExecStart'].split()
        command[0] = os.path.join(self.programs, os.path.basename(command[0]))
        log = os.path.join(self.top, 'serve.log')
        with open(log, 'wb') as stream:
            self.serve = subprocess.Popen(
                [*self.as_user(number), *command, '--init', '--datadirs',
                 store], stdout=stream, stderr=stream)
        self.addCleanup(self.stop)

        def ready():
            self.assertIsNone(self.serve.poll(), self.read(log))
            return 'READY' in self.read(log)
        wait_until('predella serve is ready', ready, 60)

    def stop(self):
        if self.serve is None:
            return
        self.serve.send_signal(signal.SIGTERM)
        self.serve.wait(60)
        self.serve = None
        shutil.rmtree(STATE)
        shutil.rmtree(os.path.join(self.top, 'store-1'))

    @staticmethod
    def read(path):
        with open(path, encoding='utf-8', errors='replace') as stream:
            return stream.read()

    @staticmethod
    def as_user(number):
        return ['setpriv', f'--reuid={number}', f'--regid={number}',
                '--clear-groups']

    def glance(self, number, conf, volume):
        """Its driver in a container that has this volume, as this user."""
        outside, inside = volume.split(':')
        script = os.path.join(self.top, 'glance.py')
        with open(script, 'w', encoding='utf-8') as stream:
            stream.write(GLANCE)
        return subprocess.run(
            ['unshare', '--mount', 'sh', '-euc', '''
mkdir -p "$1/volume"
mount --bind "$2" "$1/volume"
mount -t tmpfs tmpfs /var/lib
mkdir -p "$3"
mount --move "$1/volume" "$3"
shift 3
exec "$@"''', 'sh', self.top, outside, inside, *self.as_user(number),
             sys.executable, '-W', 'ignore', script, conf, *self.python],
            capture_output=True, text=True, check=False, timeout=120,
            env={'PATH': os.environ['PATH'], 'HOME': '/', 'XDG_CACHE_HOME':
                 self.top, 'PYTHONDONTWRITEBYTECODE': '1'})

    def conf(self, example):
        """A glance-api.conf of the example, and its volume."""
        path, volume = self.of_example(example)
        # Who is refused is so at once.
        with open(path, 'a', encoding='utf-8') as stream:
            stream.write('\npredella_write_timeout = 2\n')
        return path, volume

    def of_example(self, example):
        path = os.path.join(self.top, 'glance-api.conf')
        if example == 'kolla':
            shutil.copy(os.path.join(EXAMPLES, 'kolla', 'glance-api.conf'),
                        path)
            with open(os.path.join(EXAMPLES, 'kolla', 'globals.yml'),
                      encoding='utf-8') as stream:
                return path, *yaml.safe_load(stream)['glance_extra_volumes']
        with open(os.path.join(EXAMPLES, example, 'values.yaml'),
                  encoding='utf-8') as stream:
            values = yaml.safe_load(stream)
        with open(path, 'w', encoding='utf-8') as stream:
            for section, options in values['conf']['glance'].items():
                stream.write(f'[{section}]\n')
                for name, value in options.items():
                    stream.write(f'{name} = {value}\n')
        mounts = values['pod']['mounts']['glance_api']['glance_api']
        return path, (mounts['volumes'][0]['hostPath']['path'] + ':' +
                      mounts['volumeMounts'][0]['mountPath'])

    def test_glance_reaches_them(self):
        for example in ('kolla', 'openstack-helm'):
            _, number = made_user(example)
            self.start(number)
            conf, volume = self.conf(example)
            done = self.glance(number, conf, volume)
            self.assertEqual((0, 'of a glance\n'),
                             (done.returncode, done.stdout), done.stderr)
            # This is what the user is for.
            refused = self.glance(number + 1, conf, volume)
            self.assertRegex(
                refused.stderr,
                'StorageWriteDenied.*coordinator.sock: Permission denied')
            self.stop()


if __name__ == '__main__':
    unittest.main()
