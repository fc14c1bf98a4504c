"""The directories of Glance's filesystem store, by its configuration, and
as --datadirs of predella serve has them."""
from glance_store_predella.cluster import Failed


def _lines(path):
    try:
        with open(path, encoding='utf-8') as stream:
            for line in stream:
                text = line.strip()
                if text and text[0] not in '#;':
                    yield line, text
    except OSError as e:
        raise Failed(f'{path}: {e}') from e


def has_section(path, section):
    return any(text == f'[{section}]' for _, text in _lines(path))


def _values(path, backend, wanted):
    """Of an option that may stand there often: each value, in their order.

    configparser keeps the last one only.
    """
    values, section, last = [], None, None
    for line, text in _lines(path):
        if text.startswith('['):
            section, last = text.strip('[]'), None
        elif line[0].isspace():
            if last is not None:
                last.append(text)
        elif section == backend:
            key, _, value = text.partition('=')
            last = None
            if key.strip() == wanted:
                last = [value.strip()]
                values.append(last)
        else:
            last = None
    # oslo.config's MultiStrOpt takes each value whole; the store splits none.
    return [' '.join(value).strip() for value in values]


DEFAULT = '/var/lib/glance/images'
_MANY, _ONE = 'filesystem_store_datadirs', 'filesystem_store_datadir'


def _backends(path):
    """[(section, type)] of multi-store; empty without it."""
    backends = _values(path, 'DEFAULT', 'enabled_backends')
    if not backends or not backends[-1]:
        return []
    pairs = [one.partition(':') for one in backends[-1].split(',')]
    return [(name.strip(), kind.strip()) for name, _, kind in pairs]


def store_of_type(path, store, kind):
    """Whether there is one; also where multi-store is not used, and nothing
    says so."""
    backends = _backends(path)
    return not backends or (store, kind) in backends


def file_stores(path):
    """Sections of the stores of type file; one without multi-store: that is
    [glance_store]."""
    backends = _backends(path)
    if not backends:
        return ['glance_store']
    return [name for name, kind in backends if kind in ('file', 'filesystem')]


def predella_stores(path):
    """{section: its endpoint}, of those that have one."""
    found = {}
    for name, kind in _backends(path):
        if kind == 'predella':
            for section in (name, 'backend_defaults'):
                endpoint = _values(path, section, 'predella_endpoint')
                if endpoint and endpoint[-1]:
                    found.setdefault(name, endpoint[-1])
    return found


def only_file_store(path):
    stores = file_stores(path)
    if len(stores) != 1:
        raise Failed(f'{path} has {len(stores)} stores of type file'
                     f'{": " if stores else ""}{", ".join(stores)}; say which: '
                     '--store SECTION')
    return stores[0]


def read(path, backend):
    """[(directory, priority)] of the store in one section."""
    many = [value for value in _values(path, backend, _MANY) if value]
    one = _values(path, backend, _ONE)
    if many and one and one[-1]:
        raise Failed(f'{path}: [{backend}] has {_ONE} and {_MANY}, which '
                     'Glance refuses: leave the one that is meant')
    if many:
        return parse(many)
    if one:
        return [(one[-1], 0)] if one[-1] else []
    # As Glance takes it, where nothing is said of the store.
    return [(DEFAULT, 0)]


def is_thin(path, backend):
    """Whether Glance's own store leaves holes there."""
    values = _values(path, backend, 'filesystem_thin_provisioning')
    return bool(values) and values[-1].lower() in ('true', '1', 'yes', 'on')


def parse(values):
    """[(path, priority)]: split at the last colon, 0 without one."""
    out = []
    for value in values:
        path, colon, priority = value.rpartition(':')
        if not colon:
            path, priority = value, ''
        try:
            out.append((path.strip(), int(priority or '0')))
        except ValueError as e:
            raise Failed(f'filesystem_store_datadirs = {value}: '
                         f'"{priority}" is no priority') from e
    return out


def turned_round(directories):
    """Glance takes the highest first, Predella the lowest."""
    levels = sorted({priority for _, priority in directories}, reverse=True)
    return [(path, 100 * (levels.index(priority) + 1))
            for path, priority in directories]
