"""Images and locations as Glance has them: its database, or an export.

SQLAlchemy is there wherever Glance is. Only the columns are used that every
Glance since 2012 has, os_hash_* and os_hidden (since 2018).
"""
import configparser
import contextlib
import dataclasses
import json

from glance_store_predella.cluster import Failed

DEFAULT_CONF = '/etc/glance/glance-api.conf'
_IMAGES = ('SELECT id, name, owner, status, size, checksum, os_hash_algo, '
           'os_hash_value, os_hidden FROM images WHERE deleted = :no')
_LOCATIONS = ('SELECT l.id, l.image_id, l.value, l.meta_data '
              'FROM image_locations l JOIN images i ON i.id = l.image_id '
              'WHERE l.deleted = :no AND i.deleted = :no ORDER BY l.id')
_UPDATE = ('UPDATE image_locations SET value = :value, meta_data = :meta '
           'WHERE id = :id AND value = :old AND deleted = :no')


@dataclasses.dataclass
class Location:
    row: int
    value: str
    meta: str | None  # JSON, as the row has it


@dataclasses.dataclass
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


def _hashes(row):
    hashes = {}
    if row.get('checksum'):
        hashes['md5'] = row['checksum']
    if row.get('os_hash_algo') and row.get('os_hash_value'):
        hashes[row['os_hash_algo'].lower()] = row['os_hash_value']
    return hashes


def _image(row):
    return Image(row['id'], row.get('name') or '', row.get('owner') or '',
                 row.get('status') or '', row.get('size'),
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

    def _rows(self, connection, query):
        result = connection.execute(self._text(query), {'no': False})
        return [dict(row._mapping) for row in result]

    def images(self):
        with self._said(self._engine.connect) as connection:
            images = {row['id']: _image(row)
                      for row in self._rows(connection, _IMAGES)}
            for image in images.values():
                image.locations = []
            for row in self._rows(connection, _LOCATIONS):
                if row['image_id'] in images:
                    images[row['image_id']].locations.append(Location(
                        row['id'], row['value'], row['meta_data']))
        return images

    def change(self, changes):
        """In one transaction; returns the rows that were not as expected."""
        missed = []
        with self._said(self._engine.begin) as connection:
            for change in changes:
                done = connection.execute(self._text(_UPDATE), {
                    'id': change['row'], 'old': change['old'],
                    'value': change['new'], 'no': False,
                    'meta': change['new_meta']})
                if done.rowcount != 1:
                    missed.append(change)
        return missed


class Export:
    """`predella glance export`, or GET /v2/images, or `openstack image list
    --long -f json`, in a file."""

    def __init__(self, path):
        try:
            with open(path, encoding='utf-8') as stream:
                data = json.load(stream)
            rows = data['images'] if isinstance(data, dict) else data
            if isinstance(data, dict) and data.get('next'):
                raise Failed(f'{path} is one page of several (it has a '
                             '"next"): ask for all with limit=, or let predella '
                             'glance export make the list')
            self._images = {}
            for row in rows:
                row = {key.lower(): value for key, value in row.items()}
                row.setdefault('owner', row.get('project'))
                image = self._images[row['id']] = _image(row)
                # Those of the API (show_multiple_locations) bear no row.
                if isinstance(row.get('locations'), list) and all(
                        'row' in one for one in row['locations']):
                    image.locations = [
                        Location(one['row'], one['value'], one['meta'])
                        for one in row['locations']]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Failed(f'{path} is no list of images: {e!r}') from e

    def images(self):
        return self._images


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
