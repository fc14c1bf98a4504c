#!/usr/bin/env python3
"""docs/flags.md and the units of packaging/ against the binaries' own tables.

flags_doc.py ROOT BIN            exits 1 when the document differs from what
                                 the binaries print, or a unit names an option
                                 that its program does not have
flags_doc.py ROOT BIN --update   writes the tables into the document
"""
import os
import re
import subprocess
import sys

PROGRAMS = ('predella-coordinator', 'predella-agent', 'predella serve')


def table(binaries, program):
    name, *arguments = program.split()
    environment = {k: v for k, v in os.environ.items()
                   if not k.startswith('PREDELLA_')}
    return subprocess.run(
        [os.path.join(binaries, name), *arguments, '--print-flags'],
        check=True, capture_output=True, text=True, env=environment).stdout


def with_tables(text, tables):
    """The document with each marked block replaced."""
    for program, rows in tables.items():
        begin = f'<!-- begin {program} -->\n'
        end = f'<!-- end {program} -->'
        if begin not in text or end not in text:
            raise SystemExit(f'docs/flags.md: no block of {program}')
        head, rest = text.split(begin)
        text = head + begin + rows + end + rest.split(end, 1)[1]
    return text


def check_units(root, tables):
    directory = os.path.join(root, 'packaging', 'systemd')
    for unit in sorted(os.listdir(directory)):
        with open(os.path.join(directory, unit), encoding='utf-8') as stream:
            line = re.search(r'^ExecStart=/usr/bin/(.*)$', stream.read(), re.M)
        command = line.group(1) if line else ''
        program = next((p for p in PROGRAMS if command.startswith(p)), None)
        if program is None:
            yield f'packaging/systemd/{unit}: runs none of our programs'
            continue
        known = set(re.findall(r'^\| `(--[a-z-]+)', tables[program], re.M))
        for option in re.findall(r'(--[a-z-]+)', command):
            if option not in known | {'--config'}:
                yield f'packaging/systemd/{unit}: {program} has no {option}'


def main():
    root, binaries = sys.argv[1:3]
    path = os.path.join(root, 'docs', 'flags.md')
    with open(path, encoding='utf-8') as stream:
        text = stream.read()
    tables = {program: table(binaries, program) for program in PROGRAMS}
    fresh = with_tables(text, tables)
    found = list(check_units(root, tables))
    if '--update' in sys.argv:
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write(fresh)
    elif fresh != text:
        found.append('docs/flags.md differs from what the binaries say: run '
                     'tests/house/flags_doc.py . BIN --update')
    for line in found:
        print(line)
    print(f'{sum(t.count(chr(10)) - 2 for t in tables.values())} options, '
          f'{len(found)} findings')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
