"""What every test of the driver needs: the package on the path, and stores
made as Glance makes them.
"""
import os
import sys
from unittest import mock

import paths

HERE = paths.HERE
SOURCE = paths.SOURCE
sys.path[:0] = paths.INSTALLED + [
    os.path.join(SOURCE, 'tests', 'integration')]

from glance_store import location  # noqa: E402
from glance_store import multi_backend  # noqa: E402
from oslo_config import cfg  # noqa: E402

from glance_store_predella import calls  # noqa: E402
from glance_store_predella import native  # noqa: E402


def use_native(module):
    """Puts a module in the place of the native one; None: the real one."""
    native._module = module


class Clock:
    """In the place of the one that says how long a call is tried again."""

    def __init__(self, case):
        self.now = 1000.0
        self.then = {}  # what happens, by the time
        for target, name, value in ((calls, 'time', self),
                                    (native, 'pause', self.pause)):
            patch = mock.patch.object(target, name, value)
            patch.start()
            case.addCleanup(patch.stop)

    def monotonic(self):
        return self.now

    def pause(self, seconds):
        assert 0 < seconds <= 1
        self.now += seconds
        for when in [one for one in self.then if one <= self.now]:
            self.then.pop(when)()


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
