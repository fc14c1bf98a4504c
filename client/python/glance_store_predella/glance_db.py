"""Images and locations as Glance has them: its database, or an export.

SQLAlchemy is there wherever Glance is. Only the columns are used that every
Glance since 2014 has, os_hash_* and os_hidden (since 2018).

With delayed_delete an image is deleted in its row, of status pending_delete, and
so are its locations, until Glance's scrubber has removed the data.
"""
import configparser
import contextlib
import dataclasses
import json
import sys

from glance_store_predella.cluster import Failed

DEFAULT_CONF = '/etc/glance/glance-api.conf'
PAGE = 1000
PENDING = 'pending_delete'
_COLUMNS = ('SELECT id, name, owner, status, size, checksum, os_hash_algo, '
            'os_hash_value, os_hidden FROM images '
            'WHERE (deleted = :no OR status = :pending) ')
_NEXT_IMAGES = _COLUMNS + 'AND id > :after ORDER BY id LIMIT :page'
_ONE_IMAGE = _COLUMNS + 'AND id = :id'
# Both bounds are compared as the database orders ids.
_LOCATIONS = ('SELECT id, image_id, value, meta_data, status '
              'FROM image_locations WHERE image_id >= :first '
              'AND image_id <= :last AND (deleted = :no OR status = :pending) '
              'ORDER BY id')
_UPDATE = 'UPDATE image_locations SET value = :value, meta_data = :meta '
# As Glance takes a location from an image, but that no store hears of it.
_TAKE_OUT = ('UPDATE image_locations SET deleted = :yes, '
             "status = 'deleted', deleted_at = CURRENT_TIMESTAMP ")
_PUT_BACK = ("UPDATE image_locations SET deleted = :no, status = 'active', "
             'deleted_at = NULL ')
_AS_SEEN = 'WHERE id = :id AND value = :seen AND deleted = :gone AND '
_OF_AN_IMAGE = (' AND EXISTS (SELECT 1 FROM images WHERE '
                'images.id = image_locations.image_id AND images.deleted = '
                ':no)')
# MySQL reads the table that is changed by such a detour only.
_KEPT = (' AND EXISTS (SELECT id FROM (SELECT DISTINCT id FROM image_locations '
         'WHERE id = :kept AND value IN (:then, :now) AND deleted = :no) '
         'AS kept)')


@dataclasses.dataclass(slots=True)
class Location:
    row: int
    value: str
    meta: str | None  # JSON, as the row has it
    # Its data waits for Glance's scrubber (delayed_delete).
    pending: bool = False


@dataclasses.dataclass(slots=True)
class Image:
    id: str
    name: str = ''
    owner: str = ''
    status: str = ''
    size: int | None = None
    hidden: bool = False
    hashes: dict = dataclasses.field(default_factory=dict)
    # None: an export of the API, which does not say.
    locations: list | None = None

    def live(self):
        return [one for one in self.locations if not one.pending]


def _hashes(row):
    hashes = {}
    if row.get('checksum'):
        hashes['md5'] = row['checksum']
    if row.get('os_hash_algo') and row.get('os_hash_value'):
        hashes[row['os_hash_algo'].lower()] = row['os_hash_value']
    return hashes


def _image(row):
    return Image(row['id'], row.get('name') or '',
                 sys.intern(row.get('owner') or ''),
                 sys.intern(row.get('status') or ''), row.get('size'),
                 bool(row.get('os_hidden')), _hashes(row))


def connection_of(path):
    """[database] connection of a glance-api.conf."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        with open(path, encoding='utf-8') as stream:
            parser.read_file(stream)
        return parser.get('database', 'connection')
    except (OSError, configparser.Error) as e:
        raise Failed(f'no connection in [database] of {path}: {e}; say '
                     '--config FILE, --database URL or --export FILE') from e


def _statement(change):
    """(statement, its values) that changes a row that is as it was seen, and
    that another one is there for, where it needs one."""
    values = {'id': change['row'], 'seen': change['old'], 'gone': False}
    if change['new'] is None:
        query = _TAKE_OUT
        values['yes'] = True
    elif change['old'] is None:
        query = _PUT_BACK
        values.update(seen=change['new'], gone=True, no=False)
    else:
        query = _UPDATE
        values.update(value=change['new'], meta=change['new_meta'])
    query += _AS_SEEN
    if change['old_meta'] is None:
        query += 'meta_data IS NULL'
    else:
        query += 'meta_data = :seen_meta'
        values['seen_meta'] = change['old_meta']
    if change['kept'] is not None:
        query += _KEPT
        then, now = change['kept']['values']
        values.update(kept=change['kept']['row'], then=then, now=now, no=False)
    return query + _OF_AN_IMAGE * (change['old'] is None), values


class Database:
    def __init__(self, url):
        try:
            import sqlalchemy.exc
            self._text = sqlalchemy.text
            self._error = sqlalchemy.exc.SQLAlchemyError
            self._engine = sqlalchemy.create_engine(url)
        except Exception as e:
            # Without the URL: it has a password.
            raise Failed(f'the database of Glance can not be opened: '
                         f'{type(e).__name__}; SQLAlchemy and the driver that '
                         'Glance uses are needed') from e

    @contextlib.contextmanager
    def _said(self, connect):
        """A connection whose errors are sentences, without the URL."""
        try:
            with connect() as connection:
                yield connection
        except self._error as e:
            raise Failed('the database of Glance says: '
                         f'{getattr(e, "orig", None) or type(e).__name__}'
                         ) from e

    def _rows(self, connection, query, **values):
        result = connection.execute(self._text(query), {
            'no': False, 'pending': PENDING, **values})
        return [dict(row._mapping) for row in result]

    def _with_locations(self, connection, rows):
        images = {row['id']: _image(row) for row in rows}
        for image in images.values():
            image.locations = []
        # The first and the last in the database's order, not in ours.
        for row in self._rows(connection, _LOCATIONS, first=rows[0]['id'],
                              last=rows[-1]['id']):
            if row['image_id'] in images:
                images[row['image_id']].locations.append(Location(
                    row['id'], row['value'], row['meta_data'],
                    row['status'] == PENDING))
        return images.values()

    def each(self):
        """All images, a page of them in memory."""
        after = ''
        while True:
            with self._said(self._engine.connect) as connection:
                rows = self._rows(connection, _NEXT_IMAGES, after=after,
                                  page=PAGE)
                images = (self._with_locations(connection, rows) if rows
                          else ())
            yield from images
            if len(rows) < PAGE:
                return
            after = rows[-1]['id']

    def images(self):
        return {image.id: image for image in self.each()}

    def of(self, ids):
        """Those of these images that there are now, by id."""
        found = {}
        with self._said(self._engine.connect) as connection:
            for one in ids:
                rows = self._rows(connection, _ONE_IMAGE, id=one)
                if rows:
                    found[one], = self._with_locations(connection, rows)
        return found

    def change(self, changes):
        """In one transaction; returns the rows that were not as expected."""
        missed = []
        with self._said(self._engine.begin) as connection:
            for change in changes:
                query, values = _statement(change)
                done = connection.execute(self._text(query), values)
                if done.rowcount != 1:
                    missed.append(change)
        return missed


def _location(one):
    if not isinstance(one['meta'], (str, type(None))):
        raise ValueError('of a predella-glance of before: export it anew')
    return Location(one['row'], one['value'], one['meta'],
                    bool(one.get('pending')))


def _exported(path):
    """{id: Image} of one file."""
    try:
        with open(path, encoding='utf-8') as stream:
            data = json.load(stream)
        rows = data['images'] if isinstance(data, dict) else data
        if isinstance(data, dict) and data.get('next'):
            raise Failed(f'{path} is one page of several (it has a '
                         '"next"): ask for all with limit=, or let predella '
                         'glance export make the list')
        images = {}
        for row in rows:
            row = {key.lower(): value for key, value in row.items()}
            row.setdefault('owner', row.get('project'))
            image = images[row['id']] = _image(row)
            # Those of the API (show_multiple_locations) bear no row.
            if isinstance(row.get('locations'), list) and all(
                    'row' in one for one in row['locations']):
                image.locations = [_location(one)
                                   for one in row['locations']]
        return images
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Failed(f'{path} is no list of images: {e!r}') from e


class Export:
    """`predella glance export`, or GET /v2/images, or `openstack image list
    --long -f json`, in files: the API lists hidden images by themselves."""

    def __init__(self, paths):
        self._images = {}
        self.without_locations = []  # of these files
        for path in paths:
            images = _exported(path)
            if any(one.locations is None for one in images.values()):
                self.without_locations.append(path)
            self._images.update(images)

    def each(self):
        return self._images.values()

    def images(self):
        return self._images

    def of(self, ids):
        return {one: self._images[one] for one in ids if one in self._images}


def dump(images, stream):
    rows = []
    for image in images.values():
        row = {'id': image.id, 'name': image.name, 'owner': image.owner,
               'status': image.status, 'size': image.size,
               'os_hidden': image.hidden,
               'checksum': image.hashes.get('md5')}
        for algorithm, value in image.hashes.items():
            if algorithm != 'md5':
                row['os_hash_algo'], row['os_hash_value'] = algorithm, value
        row['locations'] = [dataclasses.asdict(one)
                            for one in image.locations or []]
        rows.append(row)
    json.dump({'images': rows}, stream, indent=1)
    stream.write('\n')
