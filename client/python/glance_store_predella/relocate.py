"""Moves Glance's location rows between file:// and predella://.

A plan is made and looked at first; exactly the plan is applied, each row only
while it is as the plan saw it. So it may be broken off, begun again, and turned
round.
"""
import json
import os

from glance_store_predella import cluster as clusters
from glance_store_predella.cluster import Failed

BATCH = 100
_FILE = ('file://', 'filesystem://')
_MOVABLE = ('active', 'deactivated')


def path_of(value):
    for scheme in _FILE:
        if value.startswith(scheme):
            path = value[len(scheme):]
            return path[len('localhost'):] if path.startswith(
                'localhost/') else path
    return None


class Places:
    """Where mounts are for Glance: where their agents are, or --directory."""

    def __init__(self, mounts, directories):
        self.path = {name: os.path.normpath(mount['path'])
                     for name, mount in mounts.items() if mount['path']}
        for text in directories:
            name, _, path = text.partition('=')
            if name not in mounts or not path.startswith('/'):
                raise Failed(f'--directory {text} is not MOUNT=/PATH of a '
                             'mount of this cluster')
            self.path[name] = os.path.normpath(path)
        # Glance may know a directory by a symbolic link, as adopt does.
        self.mount = {os.path.realpath(path): name
                      for name, path in self.path.items()}
        self.mount.update({path: name for name, path in self.path.items()})

    def mount_of(self, path, image):
        directory, name = os.path.split(os.path.normpath(path))
        if name != image:
            return None
        return self.mount.get(directory) or self.mount.get(
            os.path.realpath(directory))


def _differs(glance, image):
    """Why the two are not the same image, or None."""
    if glance.size is not None and glance.size != int(image['sizeBytes']):
        return f'{glance.size} bytes in Glance, {image["sizeBytes"]} here'
    ours = clusters.hashes_of(image)
    for algorithm, value in glance.hashes.items():
        if ours.get(algorithm, value) != value:
            return f'another {algorithm}'
    return None


def _location(store, glance, image):
    return f'predella://{store}/{glance.id}/{image["locationKey"]}'


def _change(glance, location, value, store):
    return {'image': glance.id, 'row': location.row, 'old': location.value,
            'new': value, 'old_meta': location.meta,
            'new_meta': json.dumps({**(json.loads(location.meta or '{}') or {}),
                                    'store': store})}


def _is_of(location, glance, image):
    return (image is not None and location.value.startswith('predella://') and
            location.value.endswith(f'/{glance.id}/{image["locationKey"]}'))


def one_copy(glance, image):
    """Why nobody may remove one of the image's locations, or None."""
    rows = [str(one.row) for one in glance.locations
            if _is_of(one, glance, image)]
    if len(rows) < 2:
        return None
    return (f'rows {" and ".join(rows)} of image_locations are one copy: '
            'removed in one store it is gone in all')


def plan_to_predella(store, places, images, glance_images):
    """(changes, [(image, why not)])."""
    changes, left = [], []
    for glance in glance_images.values():
        for location in glance.locations:
            image = images.get(glance.id)
            if _is_of(location, glance, image):
                # Of a store that another name was given, or that was a second
                # one of this cluster.
                value = _location(store, glance, image)
                why = one_copy(glance, image)
                if why is not None:
                    if left[-1:] != [(glance.id, why)]:
                        left.append((glance.id, why))
                elif location.value != value:
                    changes.append(_change(glance, location, value, store))
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
            why = None
            if image is None or mount not in clusters.mounts_of(image):
                why = f'not adopted: predella adopt {os.path.dirname(path)}'
            elif glance.status not in _MOVABLE:
                why = f'its status is {glance.status}'
            elif image['health'] != 'IMAGE_HEALTH_HEALTHY':
                why = f'it is {image["health"][len("IMAGE_HEALTH_"):]}'
            else:
                why = _differs(glance, image)
            if why is None and any(one.value.startswith('predella://')
                                   for one in glance.locations):
                why = 'it has a predella:// location besides'
            if why is not None:
                left.append((glance.id, why))
                continue
            changes.append(_change(
                glance, location, _location(store, glance, image), store))
    return changes, left


def plan_to_file(store, places, images, glance_images):
    changes, left = [], []
    for glance in glance_images.values():
        for location in glance.locations:
            if not location.value.startswith('predella://'):
                continue
            image = images.get(glance.id)
            key = location.value.rsplit('/', 1)[-1]
            if image is None or image['locationKey'] != key:
                left.append((glance.id, 'this cluster has no such image'))
                continue
            paths = [places.path[mount]
                     for mount in clusters.mounts_of(image)
                     if mount in places.path]
            if not paths or image['health'] == 'IMAGE_HEALTH_LOST':
                left.append((glance.id, 'no mount with a known directory '
                             'holds it'))
                continue
            changes.append(_change(glance, location,
                                   f'file://{paths[0]}/{glance.id}', store))
    return changes, left


def write_plan(path, changes):
    """Never over another: it may be what turns an earlier one round."""
    try:
        # It has keys in it.
        with open(path, 'x', encoding='utf-8',
                  opener=lambda name, flags: os.open(name, flags, 0o600)
                  ) as stream:
            json.dump({'predella_relocation': 2, 'changes': changes}, stream,
                      indent=1)
            stream.write('\n')
    except OSError as e:
        raise Failed(f'the plan could not be written: {e}') from e


def read_plan(path):
    try:
        with open(path, encoding='utf-8') as stream:
            plan = json.load(stream)
        if plan['predella_relocation'] != 2:
            raise ValueError('of another version')
        return [{key: change[key] for key in
                 ('image', 'row', 'old', 'new', 'old_meta', 'new_meta')}
                for change in plan['changes']]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Failed(f'{path} is no plan of a relocation: {e!r}') from e


def turned_round(changes):
    return [{'image': one['image'], 'row': one['row'],
             'old': one['new'], 'new': one['old'],
             'old_meta': one['new_meta'], 'new_meta': one['old_meta']}
            for one in changes]


def apply_plan(database, changes):
    """(changed, already as planned, [changes whose row is another])."""
    now = {location.row: location.value
           for image in database.images().values()
           for location in image.locations}
    wanted = [one for one in changes if now.get(one['row']) == one['old']]
    there = sum(now.get(one['row']) == one['new'] for one in changes)
    others = [one for one in changes
              if now.get(one['row']) not in (one['old'], one['new'])]
    changed = 0
    for at in range(0, len(wanted), BATCH):
        batch = wanted[at:at + BATCH]
        missed = database.change(batch)
        others += missed
        changed += len(batch) - len(missed)
    return changed, there, others


def _quoted(text):
    if text is None:
        return 'NULL'
    if '\\' in text:
        raise Failed(f'{text}: a backslash means different things to different '
                     'databases; use --apply')
    return "'" + text.replace("'", "''") + "'"


def statements(changes):
    """SQL for MySQL, MariaDB, PostgreSQL and SQLite alike."""
    for one in changes:
        yield ('UPDATE image_locations SET '
               f'value = {_quoted(one["new"])}, '
               f'meta_data = {_quoted(one["new_meta"])} '
               f'WHERE id = {one["row"]} AND value = {_quoted(one["old"])};')
