"""Rows of stores that are of another cluster than the one that is asked.

A Glance may have stores of several clusters. Which store is of which cluster is
in its configuration, and only that is believed: a store whose rows are all unknown
here may as well be one that has lost its data.
"""
import collections

from glance_store_predella import cluster as clusters
from glance_store_predella import datadirs
from glance_store_predella import relocate
from glance_store_predella.output import say


class OtherClusters:
    """{store: endpoint} of those of other clusters, {store: why} of those that
    could not be asked, and the images that have rows of them. several: the
    configuration has more than one predella store."""

    def __init__(self, stores=(), unasked=(), several=False):
        self.stores = dict(stores)
        self.unasked = dict(unasked)
        self.several = several
        self._images = collections.Counter()
        self._in_doubt = set()

    def has(self, location):
        """Whether a predella:// row is of one of them."""
        return (relocate.key_of(location) is not None and
                relocate.store_of(location) in self.stores)

    def count(self, glance, image):
        """`image`: of this cluster, or None."""
        for store in {relocate.store_of(one) for one in glance.live()
                      if self.has(one)}:
            self._images[store] += 1
        if self.unasked:
            self._in_doubt.update(
                relocate.store_of(one) for one in glance.live()
                if relocate.key_of(one) is not None and
                not relocate.is_here(one, image))

    def say(self):
        for store, images in sorted(self._images.items()):
            say(f'note: {images} images have a row of store {store}, which is '
                f'of another cluster: --endpoint {self.stores[store]} asks '
                'that one')
        # Of what is here nobody needs to ask.
        for store, why in self.unasked.items():
            if store in self._in_doubt:
                say(f'note: store {store} was not asked which cluster it is '
                    'of, and its rows that are unknown here count as of this '
                    f'one: {why}')


def of_configuration(cluster, path):
    """Those of a glance-api.conf; none where there is no path of one."""
    endpoints = datadirs.predella_stores(path) if path else {}
    if not endpoints:
        return OtherClusters()
    ours, others, unasked = cluster.uid(), {}, {}
    for store, endpoint in endpoints.items():
        try:
            if clusters.Cluster(endpoint).uid() != ours:
                others[store] = endpoint
        except clusters.Failed as e:
            unasked[store] = e
    return OtherClusters(others, unasked, len(endpoints) > 1)
