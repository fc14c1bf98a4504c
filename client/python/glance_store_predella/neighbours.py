"""The other predella stores of a glance-api: one cluster is one store.

Else Glance would take one image's data for two, and delete one of the two.
Endpoints that are the same are found at the configuration, which dials
nothing. Of others the clusters themselves have to be asked, by each process.
"""
import os
import time

from glance_store_predella import native

# For how long an add waits for them. A store whose service is away is no
# reason to keep another from working: an image that somebody else stored is a
# Duplicate all the same (upload.py).
ASK_SECONDS = 3
AGAIN_SECONDS = 30


def same_endpoint(one, other):
    return _plain(one) == _plain(other)


def _plain(endpoint):
    scheme, colon, path = endpoint.partition(':')
    if colon and scheme == 'unix':
        return 'unix', os.path.realpath('/' + path.lstrip('/'))
    return 'tcp', endpoint.lower()


class Neighbours:
    """Of one store, in one process."""

    def __init__(self, endpoints):
        self._clients = {}
        for name, endpoint in endpoints.items():
            try:
                self._clients[name] = native.module().Client(
                    endpoint, float(ASK_SECONDS), float(ASK_SECONDS), False)
            except native.module().Error:
                pass  # no address: that store is refused for it
        self._others = set()  # those that were heard, of other clusters
        self._ask_at = 0.0

    def to_be_asked(self):
        """False for a while after one of them did not answer."""
        return time.monotonic() >= self._ask_at

    def of_cluster(self, uid):
        """(names of the stores of this cluster, whether all were heard)."""
        # Calls of its own: of one job one green thread may wait.
        calls = {name: client.cluster()
                 for name, client in self._clients.items()
                 if name not in self._others}
        end = time.monotonic() + ASK_SECONDS
        found = []
        for name, call in calls.items():
            try:
                if not native.wait(call.job, max(end - time.monotonic(), 0)):
                    raise native.module().Error('not in time')
                its = call.result()['cluster_uid']
            except native.module().Error:
                self._ask_at = time.monotonic() + AGAIN_SECONDS
                continue
            if its == uid:
                found.append(name)
            else:
                self._others.add(name)
        return found, len(self._others) == len(self._clients)
