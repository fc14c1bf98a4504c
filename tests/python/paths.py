"""Where the driver is: the package, its entry points as pyproject.toml gives
them, and the native module. Imports nothing of either.

PREDELLA_NATIVE names the directory of the native module (ctest sets it).
"""
import atexit
import os
import shutil
import tempfile
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
PACKAGE = os.path.join(SOURCE, 'client', 'python')
# Of this user; _install gives the tests another one.
CACHE = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
NATIVE = os.environ.get('PREDELLA_NATIVE',
                        os.path.join(SOURCE, 'build', 'dev', 'python'))


def _install():
    """A dist-info is all that importlib.metadata wants of an installation."""
    with open(os.path.join(PACKAGE, 'pyproject.toml'), 'rb') as stream:
        project = tomllib.load(stream)['project']
    top = tempfile.mkdtemp(prefix='predella-driver-')
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    info = os.path.join(
        top, f'{project["name"]}-{project["version"]}.dist-info')
    os.mkdir(info)
    with open(os.path.join(info, 'METADATA'), 'w', encoding='utf-8') as stream:
        stream.write(f'Metadata-Version: 2.1\nName: {project["name"]}\n'
                     f'Version: {project["version"]}\n')
    with open(os.path.join(info, 'entry_points.txt'), 'w',
              encoding='utf-8') as stream:
        for group, entries in project['entry-points'].items():
            stream.write(f'[{group}]\n')
            for name, value in entries.items():
                stream.write(f'{name} = {value}\n')
    # stevedore keeps what it found per user.
    os.environ['XDG_CACHE_HOME'] = top
    return [top, PACKAGE, NATIVE]


# For PYTHONPATH of a process of its own.
INSTALLED = _install()
