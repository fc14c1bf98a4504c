#!/usr/bin/env python3
"""Every code of a health check has its runbook in docs/operations.md, and every
event kind its line in the table there. Run by ctest.

operations_doc.py ROOT
"""
import glob
import os
import re
import sys

# A code is the second argument of AddCheck, or stands in the table of health.
CODES = (re.compile(r'\bAddCheck\(\s*&?cluster,\s*"([A-Z_]+)"'),
         re.compile(r'\badd\(\s*"([A-Z_]+)"'),
         re.compile(r'\{v1::HEALTH_[A-Z_]+,\s*"([A-Z_]+)"'))
# Refusals of agents become checks under their reason.
REFUSALS = ('MOUNT_IDENTITY_MISMATCH', 'CLUSTER_MISMATCH', 'MOUNT_IN_USE',
            'MOUNT_STALE', 'MOUNT_RETIRED', 'STALE_EPOCH', 'AGENT_REFUSED')
# The kind of an event is given to set_kind() as a literal. These files hand it
# on, by functions with the kind as the argument of that place (from 0).
LITERAL = re.compile(r'\bset_kind\("([a-z_]+)"\)')
HANDED_ON = re.compile(r'\bset_kind\((?!"|stored\.)')  # not when it is read
HAND_ON = {'event_recorder.cc', 'listing_audit.cc', 'mount_admin.cc',
           'orphans.cc', 'scrub_keeper.cc'}
WRITERS = (('Change', 2), ('Event', 0), ('EventOf', 1), ('Record', 0),
           ('WriteLocked', 1))
# A function that says the kind of something.
KIND_OF = re.compile(r'string_view EventKind\(.*?^}', re.M | re.S)
KIND = re.compile(r'"([a-z]+(?:_[a-z]+)*)"')


def arguments(text, start):
    """The arguments of a call, from behind its opening bracket."""
    depth, quoted, parts, part = 0, False, [], ''
    for i in range(start, len(text)):
        c = text[i]
        if c == '"' and text[i - 1] != '\\':
            quoted = not quoted
        if not quoted:
            if c in '([{':
                depth += 1
            elif c in ')]}':
                if depth == 0:
                    break
                depth -= 1
            elif c == ',' and depth == 0:
                parts.append(part)
                part = ''
                continue
        part += c
    return parts + [part]


def event_kinds(sources):
    """All kinds of events in the source, and what the search can not follow."""
    kinds, wrong = set(), []
    for name, text in sources:
        kinds |= set(LITERAL.findall(text))
        if HANDED_ON.search(text) and name not in HAND_ON:
            wrong.append(f'{name}: hands on the kind of an event; teach '
                         'tests/house/operations_doc.py by which function')
        constants = dict(re.findall(r'\b(k[A-Za-z]+)\[\] = "([a-z_]+)"', text))
        for body in KIND_OF.findall(text):
            kinds |= set(KIND.findall(body))
        for writer, place in WRITERS:
            for call in re.finditer(rf'(?<![\w:.>~]){writer}\(', text):
                given = arguments(text, call.end())
                if len(given) <= place:
                    continue
                # "X", A ? "X" : "Y", or a constant of the file.
                kind = given[place].split('?')[-1].strip()
                for part in kind.split(':'):
                    part = part.strip()
                    literal = KIND.fullmatch(part)
                    if literal:
                        kinds.add(literal[1])
                    elif part in constants:
                        kinds.add(constants[part])
    return kinds, wrong


def found(patterns, texts):
    return {match for pattern in patterns for text in texts
            for match in pattern.findall(text)}


def main():
    root = sys.argv[1]
    sources = []
    for path in glob.glob(os.path.join(root, 'server', '**', '*.cc'),
                          recursive=True):
        with open(path, encoding='utf-8') as stream:
            sources.append((os.path.basename(path), stream.read()))
    texts = [text for _, text in sources]
    with open(os.path.join(root, 'docs', 'operations.md'),
              encoding='utf-8') as stream:
        document = stream.read()
    codes = found(CODES, texts) | set(REFUSALS)
    kinds, unknown_writers = event_kinds(sources)
    events = document.split('\n## Events\n')[-1]
    table = {kind for line in events.splitlines() if line.startswith('| `')
             for kind in re.findall(r'`([a-z_]+)`', line.split('|')[1])}
    sections = set(re.findall(r'^### ([A-Z_]+)$', document, re.M))
    wrong = [f'{code}: no section in docs/operations.md'
             for code in sorted(codes - sections)]
    wrong += [f'{code}: docs/operations.md has a section, the source no such '
              'check' for code in sorted(sections - codes)]
    wrong += unknown_writers
    wrong += [f'{kind}: not in the table of events of docs/operations.md'
              for kind in sorted(kinds - table)]
    # Which also shows when the search does not find what is written.
    wrong += [f'{kind}: docs/operations.md has such an event, and nothing '
              'writes it' for kind in sorted(table - kinds)]
    for section in re.split(r'^### ', document, flags=re.M)[1:]:
        if '*Do*:' not in section:
            wrong.append(f'{section.splitlines()[0]}: says not what to do')
    if len(codes) < 20 or len(kinds) < 10:
        wrong.append(f'only {len(codes)} codes and {len(kinds)} kinds found: '
                     'the patterns do not fit the source any more')
    for line in wrong:
        print(line)
    print(f'{len(codes)} codes, {len(kinds)} kinds, {len(wrong)} findings')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
