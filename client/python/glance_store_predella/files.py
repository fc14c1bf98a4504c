"""The files of Glance's own filesystem store, beside what its rows say of them.

They are looked at (stat) and never changed; read only when that is asked for.
What is kept of an image is its id and a number, however many there are.
"""
import dataclasses
import hashlib
import os
import re
import stat

from glance_store_predella import relocate

ID = re.compile('[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_PIECE = 1 << 20
MISSING = 'missing'
MOVED = 'in another directory'
TRUNCATED = 'truncated'
GROWN = 'grown'
UNREADABLE = 'not readable'
NO_FILE = 'no plain file'
OTHERS = "another image's file"
SHARED = 'one file of two images'
BOTH = 'one file by two rows'
DIFFERS = 'other bytes'
DOUBLE = 'a second file'
LEFT = 'left behind'
# What helps, in the order in which it is looked at.
NEXT = {
    MISSING: 'see whether its disk is mounted; put FILE back from a backup, or '
             'give the image up: openstack image delete IMAGE',
    MOVED: 'mv -n the file that IS names to FILE, while Glance does not use '
           'it',
    TRUNCATED: 'put FILE back from a backup, or give the image up: openstack '
               'image delete IMAGE. Glance breaks its download off',
    GROWN: 'compare head -c IN-GLANCE FILE | md5sum with the checksum of '
           'openstack image show IMAGE; where they agree truncate -s '
           'IN-GLANCE FILE',
    UNREADABLE: 'as Glance\'s user: ls -l FILE, namei -l FILE; an EIO is the '
                'disk\'s',
    NO_FILE: 'ls -l FILE: the filesystem store makes plain files only',
    OTHERS: 'delete neither image: the file would go with it. Correct the row '
            'in image_locations by hand',
    SHARED: 'delete neither image before one of them has a copy of its own: '
            'cp FILE FILE.new && mv FILE.new FILE',
    BOTH: 'predella glance relocate --store ID --plan FILE leaves one of the '
          'rows of an adopted file; glance stores-delete would remove the '
          'file of both',
    DIFFERS: 'put FILE back from a backup: these are not the bytes that were '
             'uploaded',
    DOUBLE: 'cmp it with the one that Glance names, and remove it by hand',
    LEFT: 'no row of Glance names it: look at it, and remove it by hand; where '
          'IS says a status, openstack image delete IMAGE first',
}


@dataclasses.dataclass(slots=True)
class Finding:
    kind: str
    image: str
    path: str
    size: int | None = None  # of the file
    wanted: int | None = None  # in Glance
    detail: str = ''
    row: int | None = None  # the location's, where one names the file


class Looker:
    """Looks at the files of one image after the other, then at the rest."""

    def __init__(self, places, images, directories=(), read=False):
        """`images`: of the index, by id; `directories`: those of Glance's
        configuration, for what no row names any more."""
        self.findings = []
        self.looked_at = 0
        self.encrypted = 0
        # {directory as a row has it: number of rows}, where there is none.
        self.not_here = {}
        # {directory: files that are missing of those that rows name}.
        self.gone = {}
        self._rows = {}
        self._places = places
        self._images = images
        self._read = read
        self._here = {}  # directory of a row -> where it is here, or None
        self._scanned = {}  # identity -> path of a directory
        self._mounts = {}  # path of a directory -> the mount that it is
        self._named = {}  # image -> directories with its file, or its status
        self._same = {}  # of the former, each only once in memory
        self._links = {}  # identity of a file with several -> image
        for directory in directories:
            self._find(directory)

    def _find(self, directory):
        """Where a directory that Glance names is here; None: nowhere."""
        if directory not in self._here:
            mount = self._places.mount_at(directory)
            self._here[directory] = None
            if mount in self._places.hung:
                return None
            # Where Glance is a container, its path is another thing here.
            for path in (self._places.of_agents.get(mount), directory):
                identity = path and relocate.identity(path)
                if identity:
                    path = self._scanned.setdefault(identity, path)
                    self._here[directory] = path
                    self._mounts.setdefault(path, mount)
                    break
        return self._here[directory]

    def look(self, glance):
        """At the files that the rows of one image name."""
        here = set()
        rows = {}  # file -> the first row of this image that names it
        for location in glance.locations:
            path = relocate.path_of(location.value)
            if path is None:
                self.encrypted += '://' not in location.value
                continue
            directory, name = os.path.split(os.path.normpath(path))
            found = self._find(directory)
            if found is None:
                self.not_here[directory] = self.not_here.get(directory, 0) + 1
                continue
            if name == glance.id:
                here.add(found)
            if location.pending:
                continue  # the scrubber may have removed it already
            self.looked_at += 1
            self._rows[found] = self._rows.get(found, 0) + 1
            self._one(glance, location, os.path.join(found, name), rows)
        named = tuple(sorted(here)) if glance.locations else glance.status
        self._named[glance.id] = self._same.setdefault(named, named)

    def _say(self, kind, glance, location, path, size=None, detail=''):
        self.findings.append(Finding(kind, glance.id, path, size, glance.size,
                                     detail, location.row))

    def _one(self, glance, location, path, rows):
        directory = os.path.dirname(path)
        try:
            info = os.stat(path)
        except FileNotFoundError:
            self.gone[directory] = self.gone.get(directory, 0) + 1
            self._say(MISSING, glance, location, path)
            return
        except OSError as e:
            self._say(UNREADABLE, glance, location, path, None, e.strerror)
            return
        if not stat.S_ISREG(info.st_mode):
            self._say(NO_FILE, glance, location, path)
            return
        self._whose(glance, location, path, info)
        self._by_two_rows(glance, location, path, info.st_size, rows)
        wanted = glance.size
        if wanted is not None and info.st_size != wanted:
            self._say(TRUNCATED if info.st_size < wanted else GROWN, glance,
                      location, path, info.st_size)
        elif not os.access(path, os.R_OK, effective_ids=True):
            self._say(UNREADABLE, glance, location, path, info.st_size,
                      f'mode {stat.S_IMODE(info.st_mode):04o}, owner '
                      f'{info.st_uid}:{info.st_gid}')
        elif self._read:
            self._compare(glance, location, path, info.st_size)

    def _whose(self, glance, location, path, info):
        """Whether it is, by its name or by a link, another image's."""
        name = os.path.basename(os.path.realpath(path))
        if name != glance.id and ID.fullmatch(name):
            self._say(OTHERS, glance, location, path, info.st_size,
                      f'image {name}')
        elif info.st_nlink > 1:
            other = self._links.setdefault((info.st_dev, info.st_ino),
                                           glance.id)
            if other != glance.id:
                self._say(SHARED, glance, location, path, info.st_size,
                          f'with image {other}')

    def _by_two_rows(self, glance, location, path, size, rows):
        """Whether another row of the image is of this very file: a
        predella:// one, or one that names it by a link."""
        directory, name = os.path.split(path)
        mount = self._mounts[directory]
        if mount is None:
            mount = self._places.mount_of(path, glance.id)
        elif name != glance.id:
            mount = None
        image = self._images.get(glance.id)
        first = (location.row if len(glance.locations) < 2 else
                 rows.setdefault(os.path.realpath(path), location.row))
        if (mount and image and mount in image.mounts and
                any(relocate.is_here(one, image) for one in glance.locations)):
            self._say(BOTH, glance, location, path, size)
        elif first != location.row:
            self._say(BOTH, glance, location, path, size,
                      f'row {first} names it too')

    def _compare(self, glance, location, path, size):
        digests = {name: hashlib.new(name) for name in glance.hashes
                   if name in hashlib.algorithms_available}
        try:
            with open(path, 'rb', buffering=0) as stream:
                while piece := stream.read(_PIECE):
                    for digest in digests.values():
                        digest.update(piece)
        except OSError as e:
            self._say(UNREADABLE, glance, location, path, size, e.strerror)
            return
        wrong = [name for name, digest in digests.items()
                 if digest.hexdigest() != glance.hashes[name]]
        if wrong:
            self._say(DIFFERS, glance, location, path, size,
                      f'another {" and ".join(sorted(wrong))}')

    def look_at_the_rest(self, now, young_seconds):
        """At files that no row names. After all images."""
        missing = {}
        for one in self.findings:
            if one.kind == MISSING:
                missing.setdefault(os.path.basename(one.path), []).append(one)
        for directory in list(self._scanned.values()):
            try:
                self._scan(directory, now, young_seconds, missing)
            except OSError as e:
                self.findings.append(Finding(UNREADABLE, '-', directory,
                                             detail=e.strerror))

    def _scan(self, directory, now, young_seconds, missing):
        mount = self._mounts[directory]
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name
                if not ID.fullmatch(name):
                    continue
                named = self._named.get(name)
                if isinstance(named, tuple) and directory in named:
                    continue
                image = self._images.get(name)
                if mount and image is not None and mount in image.mounts:
                    continue  # an image of Predella's
                try:
                    info = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile
                if not stat.S_ISREG(info.st_mode):
                    continue
                if name in missing:
                    for one in missing.pop(name):
                        one.kind, one.size = MOVED, info.st_size
                        one.detail = entry.path
                elif now - info.st_mtime >= young_seconds:
                    self._unnamed(entry.path, name, info.st_size, named)

    def _unnamed(self, path, name, size, named):
        if isinstance(named, tuple):
            self.findings.append(Finding(DOUBLE, name, path, size,
                                         detail='Glance names another'))
        else:
            self.findings.append(Finding(
                LEFT, name, path, size,
                detail=f'the image is {named}' if named else ''))

    def empty_directories(self):
        """[(directory, rows)]: not one file of what rows name is there."""
        return [(directory, rows) for directory, rows
                in sorted(self._rows.items())
                if rows > 1 and self.gone.get(directory) == rows]
