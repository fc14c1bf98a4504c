"""The other predella stores of a glance-api: one cluster is one store.

Else Glance would take one image's data for two, and delete one of the two.
Endpoints that are the same are found at the configuration, which dials
nothing. Of others the clusters themselves have to be asked, by each process.
"""
import hmac
import os
import time

from glance_store_predella import calls
from glance_store_predella import native

# For how long they are waited for. A store whose service is away is no reason to
# keep another from working: an image that somebody else stored is a Duplicate
# all the same (upload.py), and a cluster that just said NOT_FOUND is not away.
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
            if not endpoint:
                continue  # that store is refused for it, and leads nowhere
            try:
                self._clients[name] = native.module().Client(
                    endpoint, float(ASK_SECONDS), float(ASK_SECONDS), False)
            except native.module().Error:
                pass  # no address: that store is refused for it
        self._uids = {}  # of those that were heard
        self._ask_at = {}

    def any(self):
        return bool(self._clients)

    def of_cluster(self, uid):
        """Names of the stores of this cluster, as far as they were heard.

        One that was heard to be another's is not asked again.
        """
        answers = self._ask([name for name in self._clients
                             if self._uids.get(name, uid) == uid],
                            lambda client: client.cluster())
        for name, answer in answers.items():
            self._uids[name] = answer['cluster_uid']
        return [name for name in self._clients if self._uids.get(name) == uid]

    def that_have(self, image_id, key):
        """Names of the stores whose cluster has this very image."""
        answers = self._ask(list(self._clients),
                            lambda client: client.stat(image_id))
        return [name for name, image in answers.items()
                if hmac.compare_digest(key, image['location_key'])]

    def _ask(self, names, begin):
        """What those answer that are there, by name."""
        # Calls of its own: of one job one green thread may wait.
        begun = {name: begin(self._clients[name]) for name in names
                 if time.monotonic() >= self._ask_at.get(name, 0.0)}
        end = time.monotonic() + ASK_SECONDS
        answers = {}
        for name, call in begun.items():
            away = True
            if native.wait(call.job, max(end - time.monotonic(), 0)):
                try:
                    answers[name] = call.result()
                    continue
                except native.module().Error as e:
                    away = calls.is_away(e)
            if away:
                self._ask_at[name] = time.monotonic() + AGAIN_SECONDS
        return answers
