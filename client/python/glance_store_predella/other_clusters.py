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
    """{store: endpoint} of those of other clusters, and their rows."""

    def __init__(self, stores=()):
        self.stores = dict(stores)
        self._images = collections.Counter()

    def has(self, location):
        """Whether a predella:// row is of one of them."""
        return (relocate.key_of(location) is not None and
                relocate.store_of(location) in self.stores)

    def count(self, glance):
        for store in {relocate.store_of(one) for one in glance.live()
                      if self.has(one)}:
            self._images[store] += 1

    def say(self):
        for store, images in sorted(self._images.items()):
            say(f'note: {images} images have a row of store {store}, which is '
                f'of another cluster: --endpoint {self.stores[store]} asks '
                'that one')


def of_configuration(cluster, path):
    """Those of a glance-api.conf; none where there is no path of one."""
    endpoints = datadirs.predella_stores(path) if path else {}
    if not endpoints:
        return OtherClusters()
    ours, others = cluster.uid(), {}
    for store, endpoint in endpoints.items():
        try:
            if clusters.Cluster(endpoint).uid() != ours:
                others[store] = endpoint
        except clusters.Failed as e:
            say(f'note: store {store} was not asked which cluster it is of, and '
                f'its rows count as of this one: {e}')
    return OtherClusters(others)
