"""What every test of the driver needs: the package on the path with its entry
points as pyproject.toml gives them, and stores made as Glance makes them.

PREDELLA_NATIVE names the directory of the native module (ctest sets it).
"""
import atexit
import os
import shutil
import sys
import tempfile
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
PACKAGE = os.path.join(SOURCE, 'client', 'python')
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
    sys.path[:0] = [top, PACKAGE, NATIVE,
                    os.path.join(SOURCE, 'tests', 'integration')]


_install()

from glance_store import location  # noqa: E402
from glance_store import multi_backend  # noqa: E402
from oslo_config import cfg  # noqa: E402

from glance_store_predella import native  # noqa: E402


def use_native(module):
    """Puts a module in the place of the native one; None: the real one."""
    native._module = module


def make_stores(**sections):
    """Stores as Glance configures them; a section is its type and options.

    make_stores(fast={'type': 'predella', 'predella_endpoint': ...})
    """
    conf = cfg.ConfigOpts()
    conf([], project='glance', default_config_files=[])
    conf.register_opt(cfg.DictOpt('enabled_backends'))
    conf.set_override('enabled_backends', {
        name: section['type'] for name, section in sections.items()})
    multi_backend.register_store_opts(conf)
    for name, section in sections.items():
        for option, value in section.items():
            if option != 'type':
                conf.set_override(option, value, group=name)
    location.SCHEME_TO_CLS_BACKEND_MAP.clear()
    multi_backend.create_multi_stores(conf)
    stores = {}
    for backends in location.SCHEME_TO_CLS_BACKEND_MAP.values():
        for name, found in backends.items():
            stores[name] = found['store']
    return conf, stores


def where(conf, uri, backend):
    return location.get_location_from_uri_and_backend(uri, backend, conf=conf)
