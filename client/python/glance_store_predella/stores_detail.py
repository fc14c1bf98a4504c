"""A paste filter: /v2/info/stores/detail for stores that Glance does not know.

Glance has a fixed table of store types there, and answers 500 for the whole
call where one is not in it, or where a file store has several directories.
Every store that Glance can describe is still described by Glance, which also
checks the policy; the others are added here. See docs/glance.md.
"""
import functools
import logging

import glance_store
from oslo_config import cfg

LOG = logging.getLogger(__name__)

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


def _store(backend):
    return glance_store.get_store_from_store_identifier(backend)


def _is_of_glance(backend):
    try:
        return _of_glance(cfg.CONF.enabled_backends[backend], _store(backend))
    except Exception:  # as of a driver that could not be loaded
        return False


def _described(one):
    """A store that Glance does not describe, or cannot.

    What is wrong with one, as in its section, is no reason to tell nothing of
    the others.
    """
    backend = one['id']
    kind = cfg.CONF.enabled_backends[backend]
    try:
        properties = _properties(kind, backend, _store(backend))
    except Exception as e:
        LOG.warning('predella: store %s of type %s has no properties in '
                    '/v2/info/stores/detail: %s: %s', backend, kind,
                    type(e).__name__, e)
        properties = {}
    described = {**one, 'type': kind, 'properties': properties}
    # From Glance 27.0 on.
    weight = getattr(getattr(cfg.CONF, backend), 'weight', None)
    if weight is not None:
        described['weight'] = weight
    return described


def _wrap(controller):
    original = controller.get_stores_detail

    class Some(controller):
        """To whom there is one store, or none."""

        wanted = None

        def get_stores(self, req):
            return {'stores': [one for one in super().get_stores(req)['stores']
                               if one['id'] == self.wanted]}

    def by_glance(self, req, backend):
        some = Some(self.policy)
        some.wanted = backend
        return original(some, req)['stores']

    def describe(self, req, one):
        if _is_of_glance(one['id']):
            try:
                return by_glance(self, req, one['id'])[0]
            except Exception as e:
                LOG.warning('predella: Glance cannot describe store %s: '
                            '%s: %s', one['id'], type(e).__name__, e)
        return _described(one)

    @functools.wraps(original)
    def get_stores_detail(self, req):
        # First of none, as it refuses whoever may not see any.
        by_glance(self, req, None)
        return {'stores': [describe(self, req, one)
                           for one in self.get_stores(req)['stores']]}

    get_stores_detail.of_predella = True
    controller.get_stores_detail = get_stores_detail


def filter_factory(global_config, **local_config):
    """Called once a process, before the first request; passes requests on."""
    from glance.api.v2 import discovery
    controller = discovery.InfoController
    if not hasattr(controller.get_stores_detail, 'of_predella'):
        _wrap(controller)
    return lambda app: app
