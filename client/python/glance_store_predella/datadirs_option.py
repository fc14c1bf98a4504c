"""multifilesystem_store_datadir, as users of the blueprint write it.

The service decides where images lie; this is only held against it.
"""
import os


def parse(entries):
    """{path: priority, None without one}; ValueError with a sentence.

    As predella serve reads it: [NAME=]PATH[:PRIORITY].
    """
    found = {}
    for entry in entries:
        text = entry.strip()
        name, equals, rest = text.partition('=')
        if equals and '/' not in name:
            text = rest
        path, colon, priority = text.rpartition(':')
        if not colon or '/' in priority:
            path, priority = text, None
        elif not priority.strip().isdecimal():
            raise ValueError(f'multifilesystem_store_datadir: the priority of '
                             f'"{entry}" is no number')
        path = os.path.normpath(path.strip())
        if not path.startswith('/'):
            raise ValueError(f'multifilesystem_store_datadir: "{entry}" does '
                             'not begin with a slash')
        if path in found:
            raise ValueError(f'multifilesystem_store_datadir: {path} twice')
        found[path] = None if priority is None else int(priority)
    given = [one is not None for one in found.values()]
    if any(given) and not all(given):
        raise ValueError('multifilesystem_store_datadir: all directories have '
                         'a priority, or none')
    return found


def differences(wanted, mounts):
    """Sentences; none where the service has just these directories.

    A mount whose agent was not heard since the coordinator started has no
    path; it may be any of those that are missing.
    """
    served = {os.path.normpath(mount['path']): mount['priority']
              for mount in mounts if mount['path']}
    unheard = sum(not mount['path'] for mount in mounts)
    missing = [path for path in wanted if path not in served]
    said = []
    if len(missing) > unheard:
        said.append(f'no mount serves {", ".join(missing)}')
    more = [path for path in served if path not in wanted]
    if more:
        said.append(f'it has {", ".join(more)} besides')
    for path, priority in wanted.items():
        if priority is not None and served.get(path, priority) != priority:
            said.append(f'{path} has priority {served[path]} and not '
                        f'{priority}')
    return said
