"""The examples for installers can be read, and name options that there are."""
import configparser
import os
import re
import subprocess
import unittest

import environment
import yaml

from glance_store_predella import options

TOP = os.path.join(environment.SOURCE, 'packaging', 'examples')
# Of glance_store itself.
KNOWN = {option.name for option in options.OPTIONS} | {
    'store_description', 'weight'}


def read(*parts):
    with open(os.path.join(TOP, *parts), encoding='utf-8') as stream:
        return stream.read()


class ExamplesTest(unittest.TestCase):
    def assert_configured(self, conf):
        backends = dict(one.strip().split(':') for one in
                        conf['DEFAULT']['enabled_backends'].split(','))
        self.assertIn(conf['glance_store']['default_backend'], backends)
        for name, kind in backends.items():
            self.assertEqual('predella', kind)
            self.assertLessEqual(set(conf[name]), KNOWN)
            self.assertIn('predella_endpoint', conf[name])

    def test_kolla(self):
        parser = configparser.ConfigParser(default_section='none')
        parser.read_string(read('kolla', 'glance-api.conf'))
        self.assert_configured(parser)
        socket = parser['fast']['predella_endpoint'][len('unix:'):]
        volume, = yaml.safe_load(read('kolla', 'globals.yml')
                                 )['glance_extra_volumes']
        self.assertEqual(os.path.dirname(socket), volume.split(':')[1])
        with open(os.path.join(environment.SOURCE, 'client', 'python',
                               'pyproject.toml'), encoding='utf-8') as stream:
            version = re.search('version = "(.*)"', stream.read())[1]
        self.assertIn(f'glance_store_predella-{version}-cp311',
                      read('kolla', 'template-override.j2'))

    def test_openstack_helm(self):
        values = yaml.safe_load(read('openstack-helm', 'values.yaml'))
        conf = values['conf']['glance']
        self.assert_configured(conf)
        mounts = values['pod']['mounts']['glance_api']['glance_api']
        self.assertEqual(
            os.path.dirname(conf['fast']['predella_endpoint'][len('unix:'):]),
            mounts['volumeMounts'][0]['mountPath'])

    def test_devstack(self):
        """Run with DevStack's functions written down instead of done."""
        script = f'''
set -eu
DEST=/dest DATA_DIR=/data GLANCE_API_CONF=/conf
is_service_enabled() {{ true; }}
iniset() {{ echo "$@"; }}
run_process() {{ echo run "$@"; }}
mkdir() {{ echo mkdir "$@"; }}
. {TOP}/devstack/settings
. {TOP}/devstack/plugin.sh stack post-config
'''
        done = subprocess.run(['bash', '-c', script], check=True,
                              capture_output=True, text=True)
        said = done.stdout.splitlines()
        conf = {}
        for line in said:
            words = line.split()
            if words[0] == '/conf':
                conf.setdefault(words[1], {})[words[2]] = words[3]
        self.assert_configured(conf)
        self.assertIn('mkdir -p /data/predella/store-2', said)
        self.assertIn('run predella /dest/predella/build/release/bin/predella '
                      'serve --init --datadirs /data/predella/store-1:100,'
                      '/data/predella/store-2:200 --state-dir '
                      '/data/predella/state', said)


if __name__ == '__main__':
    unittest.main()
