"""A paste filter: /v2/info/stores/detail for stores that Glance does not know.

Glance has a fixed table of store types there, and answers 500 for the whole
call where one is not in it, or where a file store has several directories.
Every store that Glance can describe is still described by Glance, which also
checks the policy; the others are added here. See docs/glance.md.
"""
import functools

import glance_store
from oslo_config import cfg

# The types of Glance's table, from 24.0 to 33.0.
_KNOWN = ('rbd', 'file', 'cinder', 'swift', 's3', 'http')


def _of_glance(kind, store):
    return kind in _KNOWN and (kind != 'file' or hasattr(store, 'datadir'))


def _properties(kind, backend, store):
    if kind == 'file':
        return {'data_dir': ','.join(
                    getattr(cfg.CONF, backend).filesystem_store_datadirs),
                'chunk_size': store.chunk_size,
                'thin_provisioning': store.thin_provisioning}
    describe = getattr(store, 'describe', None)
    return describe() if describe is not None else {}


def _wrap(controller):
    original = controller.get_stores_detail

    class Known(controller):
        def get_stores(self, req):
            stores = super().get_stores(req)['stores']
            return {'stores': [one for one in stores if self._is_known(one)]}

        @staticmethod
        def _is_known(one):
            return _of_glance(
                cfg.CONF.enabled_backends[one['id']],
                glance_store.get_store_from_store_identifier(one['id']))

    @functools.wraps(original)
    def get_stores_detail(self, req):
        # First, as it refuses whoever may not see any.
        known = {one['id']: one for one in original(
            Known(self.policy), req)['stores']}
        stores = []
        for one in self.get_stores(req)['stores']:
            backend = one['id']
            if backend not in known:
                kind = cfg.CONF.enabled_backends[backend]
                store = glance_store.get_store_from_store_identifier(backend)
                known[backend] = {
                    **one, 'type': kind,
                    'properties': _properties(kind, backend, store)}
                # From Glance 27.0 on.
                weight = getattr(getattr(cfg.CONF, backend), 'weight', None)
                if weight is not None:
                    known[backend]['weight'] = weight
            stores.append(known[backend])
        return {'stores': stores}

    get_stores_detail.of_predella = True
    controller.get_stores_detail = get_stores_detail


def filter_factory(global_config, **local_config):
    """Called once a process, before the first request; passes requests on."""
    from glance.api.v2 import discovery
    controller = discovery.InfoController
    if not hasattr(controller.get_stores_detail, 'of_predella'):
        _wrap(controller)
    return lambda app: app
