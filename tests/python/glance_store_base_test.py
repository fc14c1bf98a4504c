"""glance_store's own functional tests, over the driver and real daemons.

In its old configuration with [glance_store] stores: the only one that they
know. Glance itself takes no third party's type there as its default.
"""
import sys
import types
import unittest

import environment  # noqa: F401

import glance_store
from oslo_config import cfg
import testtools

from cluster import Cluster

# They ask these for a cloud's credentials; this store needs none.
for name in ('openstack', 'os_client_config'):
    sys.modules.setdefault(name, types.SimpleNamespace(config=None))

from glance_store.tests.functional import base  # noqa: E402


class BaseTest(base.BaseFunctionalTests):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster = Cluster((100,)).start()
        cls.addClassCleanup(cls.cluster.stop)

    def __init__(self, *args, **kwargs):
        testtools.TestCase.__init__(self, *args, **kwargs)

    def setUp(self):
        testtools.TestCase.setUp(self)
        conf = cfg.CONF
        glance_store.register_opts(conf)
        conf.set_override('stores', ['predella'], group='glance_store')
        conf.set_override('predella_endpoint', self.cluster.endpoint,
                          group='glance_store')
        glance_store.create_stores()
        self.store = glance_store.backend._load_store(conf, 'predella')
        self.store.configure()


if __name__ == '__main__':
    unittest.main()
