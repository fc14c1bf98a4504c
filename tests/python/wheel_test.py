"""The wheel that pip builds is all that an installation needs."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
NATIVE = os.environ.get('PREDELLA_NATIVE',
                        os.path.join(SOURCE, 'build', 'dev', 'python'))
PROGRAM = '''
import os, sys
from stevedore import driver
from oslo_config import generator
found = driver.DriverManager('glance_store.drivers', 'predella').driver
import glance_store_predella, predella_native
for module in (glance_store_predella, predella_native):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
client = predella_native.Client('unix:/nowhere', 1.0, 1.0)
upload = client.start_upload('0d7f89b2-e236-45e9-b081-561cd3102e92', None, [])
upload.finish()
assert upload.job.wait(20)
try:
    upload.result()
except predella_native.Error as e:
    assert e.code == 'UNAVAILABLE', e.code
else:
    raise AssertionError('nobody is there')
generator.main(['--namespace', 'glance_store_predella'])
'''


class WheelTest(unittest.TestCase):
    def test_build_and_install(self):
        with tempfile.TemporaryDirectory() as top:
            # A copy, as setuptools leaves things beside the sources.
            package = os.path.join(top, 'package')
            shutil.copytree(os.path.join(SOURCE, 'client', 'python'), package)
            target = os.path.join(top, 'installed')
            env = {**os.environ, 'XDG_CACHE_HOME': top,
                   'PREDELLA_BUILD_DIR': os.path.dirname(NATIVE)}
            subprocess.run(
                [sys.executable, '-m', 'pip', 'install', '--quiet',
                 '--no-deps', '--no-index', '--no-build-isolation',
                 '--disable-pip-version-check',
                 '--root-user-action=ignore', '--target', target, package],
                env=env, check=True)
            done = subprocess.run(
                [sys.executable, '-W', 'ignore', '-c', PROGRAM, target],
                env={**env, 'PYTHONPATH': target}, check=False,
                capture_output=True, text=True)
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertIn('[predella]', done.stdout)
            self.assertIn('predella_endpoint', done.stdout)
            tool = subprocess.run(
                [os.path.join(target, 'bin', 'predella-glance'), '--help'],
                env={**env, 'PYTHONPATH': target}, check=False,
                capture_output=True, text=True)
            self.assertEqual(0, tool.returncode, tool.stderr)
            self.assertIn('relocate', tool.stdout)


if __name__ == '__main__':
    unittest.main()
