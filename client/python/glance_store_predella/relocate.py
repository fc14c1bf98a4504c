"""Moves Glance's location rows between file:// and predella://, and into one
store of a cluster that was two, or has another name now.

A plan is made and looked at first; plans.py keeps and applies it.
"""
import json
import os

from glance_store_predella.cluster import Failed

_FILE = ('file://', 'filesystem://')
_MOST_LINKS = 40  # as the kernel follows them
_MOVABLE = ('active', 'deactivated')
ONE_COPY = 'one copy'


def path_of(value):
    for scheme in _FILE:
        if value.startswith(scheme):
            path = value[len(scheme):]
            return path[len('localhost'):] if path.startswith(
                'localhost/') else path
    return None


def identity(path):
    """What a directory is, whatever path leads there; None: none is here."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


class Places:
    """Where mounts are for Glance: where their agents are, or --directory."""

    def __init__(self, mounts, directories):
        self.path = {name: os.path.normpath(mount['path'])
                     for name, mount in mounts.items() if mount['path']}
        # Where they are for the agents, which may be here as well.
        self.of_agents = dict(self.path)
        # Nobody asks these for anything: who does so hangs with them.
        self.hung = {name for name, mount in mounts.items()
                     if mount['health'] == 'HEALTH_HUNG'}
        for text in directories:
            name, _, path = text.partition('=')
            if name not in mounts or not path.startswith('/'):
                raise Failed(f'--directory {text} is not MOUNT=/PATH of a '
                             'mount of this cluster')
            self.path[name] = os.path.normpath(path)
        # Glance may know a directory by a symbolic link or a bind mount.
        self._identities = {identity(path): name
                            for name, path in self.path.items()
                            if name not in self.hung}
        self._identities.pop(None, None)
        self._mounts = {path: name for name, path in self.path.items()}

    def mount_at(self, directory):
        """Name of the mount that is this directory for Glance, or None."""
        directory = os.path.normpath(directory)
        if directory not in self._mounts:
            self._mounts[directory] = self._identities.get(
                identity(directory))
        return self._mounts[directory]

    def mount_of(self, path, image):
        """Name of the mount in which this is the image's file, or None. A link
        to it is the same file, and its row is of the same data."""
        path = os.path.normpath(path)
        for _ in range(_MOST_LINKS):
            directory, name = os.path.split(path)
            mount = self.mount_at(directory)
            # Nothing in a mount is asked: it may hang.
            if mount is not None:
                return mount if name == image else None
            try:
                target = os.readlink(path)
            except OSError:
                return None
            path = os.path.normpath(
                os.path.join(os.path.realpath(directory), target))
        return None


def _differs(glance, image):
    """Why the two are not the same image, or None."""
    if glance.size is not None and glance.size != image.size:
        return f'{glance.size} bytes in Glance, {image.size} here'
    for algorithm, value in glance.hashes.items():
        if image.hashes.get(algorithm, value) != value:
            return f'another {algorithm}'
    return None


def key_of(location):
    """Of a predella:// location, else None."""
    return (location.value.rsplit('/', 1)[-1]
            if location.value.startswith('predella://') else None)


def is_here(location, image):
    """Whether it is a predella:// location of this very image, whatever store
    of this cluster it names."""
    return (image is not None and key_of(location) == image.key and
            location.value.endswith(f'/{image.id}/{image.key}'))


def _location(store, image):
    return f'predella://{store}/{image.id}/{image.key}'


def _metadata(location):
    return json.loads(location.meta or '{}') or {}


def _change(glance, location, value, store):
    return {'image': glance.id, 'row': location.row, 'old': location.value,
            'new': value, 'old_meta': location.meta,
            'new_meta': json.dumps({**_metadata(location), 'store': store}),
            'kept': None}


def _removal(glance, location, kept, value):
    """The row goes and its data stays: another row names the same, now and
    when it has got the `value` of the plan."""
    return {'image': glance.id, 'row': location.row, 'old': location.value,
            'new': None, 'old_meta': location.meta, 'new_meta': location.meta,
            'kept': {'row': kept.row, 'values': [kept.value, value]}}


def store_of(location):
    """Id of the store that Glance asks for it."""
    scheme, _, rest = location.value.partition('://')
    return _metadata(location).get('store') or (
        rest.partition('/')[0] if scheme == 'predella' else 'ID')


def _rows_here(glance, image):
    """Its live predella:// rows, which all are the one copy in Predella."""
    return [one for one in glance.live() if is_here(one, image)]


def one_copy(glance, image):
    """Why nobody may remove one of the image's locations, or None."""
    rows = [str(one.row) for one in _rows_here(glance, image)]
    if len(rows) < 2:
        return None
    return (f'rows {" and ".join(rows)} of image_locations are {ONE_COPY}: '
            'removed in one store it is gone in all')


def plan_to_predella(store, places, images, glance_images, others):
    """(changes, [(image, why not)]); `others`: the OtherClusters."""
    changes, left = [], []
    for glance in glance_images:
        image = images.get(glance.id)
        others.count(glance, image)
        here = _rows_here(glance, image)
        # The row that stays, if there is one yet: else the first file:// row.
        kept = next((one for one in here
                     if one.value == _location(store, image)),
                    here[0] if here else None)
        for location in glance.live():
            if is_here(location, image):
                # Of this store; or of one that was given another name, or
                # that was a second one of this cluster.
                if location is not kept:
                    changes.append(_removal(glance, location, kept,
                                            _location(store, image)))
                elif location.value != _location(store, image):
                    changes.append(_change(glance, location,
                                           _location(store, image), store))
                continue
            path = path_of(location.value)
            mount = path and places.mount_of(path, glance.id)
            if mount is None:
                if path is not None:
                    left.append((glance.id, f'{os.path.dirname(path)} is no '
                                 'mount of this cluster: adopt it, say '
                                 '--directory MOUNT=PATH, or keep the store '
                                 'of this row'))
                elif '://' not in location.value:
                    left.append((glance.id, 'its location is encrypted '
                                 '(metadata_encryption_key)'))
                continue
            why = _why_not(places, mount, path, glance, location, image,
                           others)
            if why is not None:
                left.append((glance.id, why))
            elif kept is not None:
                changes.append(_removal(glance, location, kept,
                                        _location(store, image)))
            else:
                kept = location
                changes.append(_change(glance, location,
                                       _location(store, image), store))
    return changes, left


def has_another(places, glance, image, location):
    """Whether a row beside this one names the copy that is here."""
    return any(is_here(one, image) or
               places.mount_of(path_of(one.value) or '', image.id)
               in image.mounts
               for one in glance.live() if one is not location)


def _why_not(places, mount, path, glance, location, image, others):
    """Why a file:// row of a mount's directory is left, or None."""
    rows = [one for one in glance.live()
            if one is not location and key_of(one) is not None and
            not others.has(one)]
    if rows and not any(is_here(one, image) for one in rows):
        store = store_of(rows[0])
        return (f'its predella:// location in store {store} is none of this '
                f'cluster; where {store} is a store of another one: --config '
                'FILE, of a glance-api.conf that has it')
    if (image is not None and mount not in image.mounts and
            has_another(places, glance, image, location)):
        return (f'it is in Predella besides, on {",".join(image.mounts)}, and '
                f'{path} is a second copy: glance stores-delete --store '
                f'{store_of(location)} {glance.id} removes that one')
    if image is None or mount not in image.mounts:
        return f'not adopted: predella adopt {os.path.dirname(path)}'
    if glance.status not in _MOVABLE:
        return f'its status is {glance.status}'
    if image.health != 'HEALTHY':
        return (f'it is {image.health}'
                f'{f": {image.why_bad()}" if image.bad else ""}')
    return _differs(glance, image)


def _as_file(store, places, glance, image):
    """(its row that stays on the way out, that row's location, why it is left
    or None)."""
    first = _rows_here(glance, image)[0]
    if image.health == 'LOST':
        return first, first.value, 'it is LOST: its last mount was retired'
    # Glance's own store compares nothing: what is bad would be served as whole.
    mounts = [mount for mount in image.sound() if mount in places.path]
    if not mounts:
        return first, first.value, (
            f'it is {image.health}: {image.why_bad()}' if image.bad else
            'no mount with a known directory holds it')
    others = [one for one in glance.live() if path_of(one.value) is not None]
    of_mounts = [(one, places.mount_of(path_of(one.value), glance.id))
                 for one in others]
    for one, mount in of_mounts:
        if mount in mounts:
            return one, one.value, None
    for one, mount in of_mounts:
        if mount in image.mounts:
            return first, first.value, (
                f'its row {one.row} names a copy that is not to be read: '
                f'{image.why_bad()}')
    for one in others:
        if _metadata(one).get('store') == store:
            return first, first.value, (
                f'store {store} has a copy of its own, {path_of(one.value)}: '
                f'glance stores-delete --store {store_of(first)} {glance.id} '
                'removes the one in Predella')
    return first, f'file://{places.path[mounts[0]]}/{glance.id}', None


def plan_to_file(store, places, images, glance_images, others):
    changes, left = [], []
    for glance in glance_images:
        image = images.get(glance.id)
        others.count(glance, image)
        here = _rows_here(glance, image)
        left += [(glance.id, 'this cluster has no such image as its row of '
                  f'store {store_of(one)} names')
                 for one in glance.live()
                 if key_of(one) is not None and not is_here(one, image) and
                 not others.has(one)]
        if not here:
            continue
        kept, value, why = _as_file(store, places, glance, image)
        if why is not None:
            left.append((glance.id, why))
        for location in here:
            if location is not kept:
                changes.append(_removal(glance, location, kept, value))
            elif location.value != value:
                changes.append(_change(glance, location, value, store))
    return changes, left
