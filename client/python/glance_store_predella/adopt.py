"""Takes in, in their place, the images that Glance's filesystem store wrote.

No byte is copied or moved. Until a file is taken in, and until its location
row is changed (relocate), Glance serves it as before.
"""
import dataclasses
import os
import re
import stat
import time

from glance_store_predella import cluster as clusters
from glance_store_predella import relocate
from glance_store_predella.cluster import Failed

_ID = re.compile('[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_OURS = ('.predella', 'lost+found')
# What may be said of a file. Only the first is done something about.
TAKE = 'image'
ALREADY = 'taken in already'
STRANGER = 'no image'
CHANGING = 'changed lately'
PARTIAL = 'partial'
TWICE = 'twice'
UNKNOWN = 'unknown to Glance'
CONFLICT = 'in conflict'


@dataclasses.dataclass
class Found:
    mount: str
    path: str
    kind: str
    detail: str = ''
    id: str = ''
    size: int | None = None


def mounts_at(cluster, paths):
    """{path: name of the mount}, for directories that a mount serves."""
    by_path = {os.path.realpath(mount['path']): (name, mount)
               for name, mount in cluster.mounts().items() if mount['path']}
    found = {}
    for path in paths:
        name, mount = by_path.get(os.path.realpath(path), (None, None))
        if name is None:
            raise Failed(
                f'{path} is no mount of this cluster: predella mount init '
                f'--with-images {path}, and start its agent (or predella '
                'serve) with it')
        if mount['health'] != 'HEALTH_ONLINE':
            raise Failed(f'mount {name} at {path} is '
                         f'{mount["health"][len("HEALTH_"):]}: predella '
                         f'mount stat {name}')
        found[os.path.normpath(path)] = name
    return found


def scan(path, mount, settle_seconds, now):
    """What lies there, as far as the directory alone tells."""
    for entry in os.scandir(path):
        if entry.name in _OURS:
            continue
        full = os.path.join(path, entry.name)
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not _ID.fullmatch(entry.name) or not stat.S_ISREG(info.st_mode):
            yield Found(mount, full, STRANGER, 'its name is no image id, or '
                        'it is no plain file')
            continue
        found = Found(mount, full, TAKE, '', entry.name, info.st_size)
        age = now - max(info.st_mtime, info.st_ctime)
        if age < settle_seconds:
            found.kind = CHANGING
            found.detail = f'{max(age, 0):.0f} s ago'
        yield found


def _judge_by_glance(found, glance):
    """Changes what is said of a file by what Glance says of its image."""
    if glance is None:
        found.kind, found.detail = UNKNOWN, 'no image of Glance has this id'
    elif glance.status not in relocate._MOVABLE:
        found.kind = PARTIAL
        found.detail = f'Glance has it as {glance.status}'
    elif glance.size is not None and found.size != glance.size:
        found.kind = PARTIAL
        found.detail = f'{found.size} bytes of the {glance.size} in Glance'


def _named_elsewhere(found, glance, places):
    """The other file that Glance names for the image, or None."""
    if glance is None or glance.locations is None:
        return None
    paths = [relocate.path_of(one.value) for one in glance.locations]
    paths = [path for path in paths if path is not None]
    if not paths or any(
            places.mount_of(path, found.id) == found.mount or
            os.path.realpath(path) == os.path.realpath(found.path)
            for path in paths):
        return None
    return paths[0]


def look(cluster, paths, glance_images, settle_seconds, directories=(),
         clock=time.time):
    """Every file in these directories, and what is to be done about it."""
    mounts = mounts_at(cluster, paths)
    places = relocate.Places(cluster.mounts(), directories)
    images = cluster.images()
    files = [found for path, mount in mounts.items()
             for found in scan(path, mount, settle_seconds, clock())]
    holders = {}
    for found in files:
        if found.id:
            holders.setdefault(found.id, []).append(found)
    for found in files:
        if not found.id:
            continue
        image = images.get(found.id)
        if image is not None:
            if found.mount in image.mounts:
                found.kind, found.detail = ALREADY, ''
            else:
                found.kind = CONFLICT
                found.detail = ('the cluster has this id on '
                                f'{",".join(image.mounts)}')
            continue
        glance = None
        if glance_images is not None:
            glance = glance_images.get(found.id)
            elsewhere = _named_elsewhere(found, glance, places)
            if elsewhere is not None:
                found.kind = TWICE if len(holders[found.id]) > 1 else CONFLICT
                found.detail = f'Glance names {elsewhere}'
                continue
        if len(holders[found.id]) > 1 and (
                glance is None or glance.locations is None):
            found.kind = TWICE
            found.detail = ' and '.join(
                one.path for one in holders[found.id] if one is not found)
            continue
        if found.kind == TAKE and glance_images is not None:
            _judge_by_glance(found, glance)
    return files


def take(cluster, files, glance_images):
    """Yields (found, None or why not) for each that is to be taken in."""
    wanted = [found for found in files if found.kind == TAKE]
    if wanted:
        known = cluster.orphans()
        if any((found.mount, found.id) not in known for found in wanted):
            # Written since the last listing.
            cluster.list_again()
    for found in wanted:
        glance = (glance_images or {}).get(found.id)
        yield found, cluster.adopt(
            found.mount, found.id, found.path, found.size,
            glance.hashes if glance is not None else {})
