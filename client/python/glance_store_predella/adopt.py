"""Takes in, in their place, the images that Glance's filesystem store wrote.

No byte is copied or moved, and nothing of a file is changed, its mode and group
neither. Until a file is taken in, and until its location row is changed
(relocate), Glance serves it as before.
"""
import dataclasses
import os
import stat
import time

from glance_store_predella import files
from glance_store_predella import readers
from glance_store_predella import relocate
from glance_store_predella.cluster import Failed

_OURS = ('.predella', 'lost+found')
# What may be said of a file. Only the first is done something about.
TAKE = 'image'
ALREADY = 'taken in already'
STRANGER = 'no image'
LINKED = 'hard link'
UNREADABLE = 'not readable'
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
    """({path: name of the mount}, [(path, the same directory's other path)]),
    for directories that a mount serves. Each directory once, by whatever paths
    it is named."""
    by_path, by_identity = {}, {}
    for name, mount in cluster.mounts().items():
        if mount['path']:
            by_path[os.path.realpath(mount['path'])] = (name, mount)
            by_identity[relocate.identity(mount['path'])] = (name, mount)
    by_identity.pop(None, None)
    found, again = {}, []
    for path in paths:
        name, mount = by_path.get(os.path.realpath(path)) or by_identity.get(
            relocate.identity(path), (None, None))
        if name is None:
            raise Failed(
                f'{path} is no mount of this cluster: predella mount init '
                f'--with-images {path}, and start its agent (or predella '
                'serve) with it')
        if mount['health'] != 'HEALTH_ONLINE':
            raise Failed(f'mount {name} at {path} is '
                         f'{mount["health"][len("HEALTH_"):]}: predella '
                         f'mount stat {name}')
        first = next((known for known, (other, _) in found.items()
                      if other == name), None)
        if first is not None:
            again.append((path, first))
        else:
            found[os.path.normpath(path)] = (name, mount)
    return found, again


def scan(path, name, mount, settle_seconds, now):
    """What lies there, as far as the directory alone tells."""
    reader = readers.Reader(mount)
    for entry in os.scandir(path):
        if entry.name in _OURS:
            continue
        full = os.path.join(path, entry.name)
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not files.ID.fullmatch(entry.name) or not stat.S_ISREG(
                info.st_mode):
            yield Found(name, full, STRANGER, 'its name is no image id, or '
                        'it is no plain file')
            continue
        found = Found(name, full, TAKE, '', entry.name, info.st_size)
        age = now - max(info.st_mtime, info.st_ctime)
        # As the agent sees it, so that it refuses nothing that is an image here.
        if info.st_nlink != 1:
            found.kind = LINKED
            found.detail = (f'{info.st_nlink} names: whoever writes to another '
                            'one changes the image')
        elif not reader.may_read(full, info):
            found.kind = UNREADABLE
            found.detail = (f'{readers.mode_of(full, info)}, and the agent is '
                            f'{reader.user}')
        elif not os.access(full, os.R_OK, effective_ids=True):
            found.kind = UNREADABLE
            found.detail = f'by you, user {os.geteuid()}: be Glance\'s user'
        elif age < settle_seconds:
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
    """What else Glance names for the image, or None."""
    if glance is None or not glance.locations:
        return None
    paths = [relocate.path_of(one.value) for one in glance.locations]
    paths = [path for path in paths if path is not None]
    if not paths:
        # One that is encrypted may be this file.
        scheme, separator, _ = glance.locations[0].value.partition('://')
        return f'a {scheme}:// location' if separator else None
    here = relocate.identity(os.path.dirname(found.path))
    if any(
            places.mount_of(path, found.id) == found.mount or
            os.path.realpath(path) == os.path.realpath(found.path) or
            (os.path.basename(path) == found.id and
             relocate.identity(os.path.dirname(path)) == here)
            for path in paths):
        return None
    return paths[0]


def _is_second_copy(found, glance, image, places):
    """Whether Glance names this file beside the image of the cluster."""
    if glance is None:
        return False
    return any(
        places.mount_of(relocate.path_of(one.value) or '', found.id) ==
        found.mount and relocate.has_another(places, glance, image, one)
        for one in glance.locations or ())


def look(cluster, mounts, glance_images, settle_seconds, directories=(),
         clock=time.time):
    """Every file in these directories, as mounts_at has them, and what is to
    be done about it."""
    places = relocate.Places(cluster.mounts(), directories)
    images = cluster.images()
    found_files = [found for path, (name, mount) in mounts.items()
                   for found in scan(path, name, mount, settle_seconds,
                                     clock())]
    holders = {}
    for found in found_files:
        if found.id:
            holders.setdefault(found.id, []).append(found)
    for found in found_files:
        if not found.id:
            continue
        image = images.get(found.id)
        glance = (glance_images or {}).get(found.id)
        if image is not None:
            if found.mount in image.mounts:
                found.kind, found.detail = ALREADY, ''
            elif _is_second_copy(found, glance, image, places):
                found.kind = TWICE
                found.detail = ('a second copy: the cluster has it on '
                                f'{",".join(image.mounts)}')
            elif any(other.mount in image.mounts
                     for other in holders[found.id]):
                # As before that one was taken in.
                found.kind = TWICE
                found.detail = f'the cluster has it on {",".join(image.mounts)}'
            else:
                found.kind = CONFLICT
                found.detail = ('the cluster has this id on '
                                f'{",".join(image.mounts)}')
            continue
        if glance_images is not None:
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
    _take_the_first(found_files)
    return found_files


def _take_the_first(found_files):
    """Of an image that Glance has in several of these directories."""
    first = {}
    for found in found_files:
        if found.kind == TAKE and first.setdefault(found.id,
                                                   found) is not found:
            found.kind = TWICE
            found.detail = (f'a second copy: {first[found.id].path} is taken '
                            'in')


def take(cluster, found_files, glance_images):
    """Yields (found, None or why not) for each that is to be taken in."""
    wanted = [found for found in found_files if found.kind == TAKE]
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
