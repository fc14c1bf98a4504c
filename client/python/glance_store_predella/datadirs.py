"""filesystem_store_datadirs, as --datadirs of predella serve has it."""
from glance_store_predella.cluster import Failed


def _values(path, backend, wanted):
    """Of an option that may stand there often: each value, in their order.

    configparser keeps the last one only.
    """
    values, section, last = [], None, None
    try:
        with open(path, encoding='utf-8') as stream:
            for line in stream:
                text = line.strip()
                if not text or text[0] in '#;':
                    continue
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
    except OSError as e:
        raise Failed(f'{path}: {e}') from e
    # oslo.config's MultiStrOpt takes each value whole; the store splits none.
    return [' '.join(value) for value in values if any(value)]


def read(path, backend):
    """The values of the repeatable option in one section, in their order."""
    return _values(path, backend, 'filesystem_store_datadirs')


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
