"""Whose a store's cluster is, as far as one process knows.

One cluster is one store. Else Glance would take one image's data for two, and
a cluster that the store's endpoint leads to by mistake would say of images that
lie elsewhere that there are none, which makes Glance forget them.
"""
import collections
import os

from glance_store import exceptions

from glance_store_predella import calls
from glance_store_predella import errors
from glance_store_predella import neighbours

# Images that this process deleted, by id and key. Where two stores have rows
# of one file, as earlier versions made them, Glance deletes by one and then by
# the other: that has to be told that the image is gone.
_deleted = collections.deque(maxlen=1000)


def note_deleted(wanted):
    _deleted.append((wanted.image_id, wanted.key))


class Claim:
    """Of one store, in one process."""

    def __init__(self, name, client, endpoints):
        """endpoints: those of the other predella stores, by name."""
        self.process = os.getpid()
        self.datadirs_compared = False
        self._name = name
        self._client = client
        self._near = neighbours.Neighbours(endpoints)
        self._uid = None

    def before_add(self, patience):
        # Its own is asked once: the upload itself waits for it.
        uid = self._uid or self._ask(errors.for_add, patience)
        twins = self._twins(uid)
        if twins:
            raise exceptions.StoreAddDisabled(message=twins)
        self._uid = uid

    def before_not_found(self, wanted, mapping, refusal, patience):
        """Raises where another cluster may have the image.

        An image that is found needs no such question: its key is right. One
        store alone has nobody to ask.
        """
        if (not self._near.any() or
                (wanted.image_id, wanted.key) in _deleted):
            return
        uid = self._ask(mapping, patience)
        why = self._changed(uid) or self._twins(uid)
        if why:
            raise refusal(message=f'{why}; whether it has image '
                                  f'{wanted.image_id} is not known')
        holders = self._near.that_have(wanted.image_id, wanted.key)
        if holders:
            raise refusal(
                message=f'predella: image {wanted.image_id} of {self._name} '
                        f'lies in the cluster of {" and ".join(holders)}: '
                        'their predella_endpoints are mixed up')
        self._uid = uid

    def _ask(self, mapping, patience):
        return calls.call(self._client.cluster, 'the question for the cluster',
                          mapping, patience)['cluster_uid']

    def _changed(self, uid):
        if self._uid in (None, uid):
            return None
        return (f'predella: {self._name} reached cluster {self._uid} before, '
                f'and reaches {uid} now: set its predella_endpoint right, or '
                'restart glance-api if that is meant')

    def _twins(self, uid):
        twins = self._near.of_cluster(uid)
        if not twins:
            return None
        names = ' and '.join([self._name, *twins])
        return (f'predella: {names} reach the same cluster, {uid}: one '
                'cluster is one store')
