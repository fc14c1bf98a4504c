"""What every test of the driver needs: the package on the path, and stores
made as Glance makes them.
"""
import os
import sys

import paths

HERE = paths.HERE
SOURCE = paths.SOURCE
sys.path[:0] = paths.INSTALLED + [
    os.path.join(SOURCE, 'tests', 'integration')]

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
