#!/usr/bin/env python3
"""Every code of a health check has its runbook in docs/operations.md, and every
event kind its line. Run by ctest.

operations_doc.py ROOT
"""
import glob
import os
import re
import sys

# A code is the second argument of Add, or stands in the table of health.
CODES = (re.compile(r'\bAdd\(\s*&?cluster,\s*"([A-Z_]+)"'),
         re.compile(r'\badd\(\s*"([A-Z_]+)"'),
         re.compile(r'\{v1::HEALTH_[A-Z_]+,\s*"([A-Z_]+)"'))
# Refusals of agents become checks under their reason.
REFUSALS = ('MOUNT_IDENTITY_MISMATCH', 'CLUSTER_MISMATCH', 'MOUNT_IN_USE',
            'STALE_EPOCH', 'AGENT_REFUSED')
KINDS = (re.compile(r'set_kind\("([a-z_]+)"\)'),
         re.compile(r'"(mount_[a-z]+(?:_[a-z]+)*)",\s*\n?\s*\[', re.M),
         re.compile(r'(?:kHealthChanged|kFullnessChanged|kGarbageHeld|'
                    r'kGarbageReleased)\[\] = "([a-z_]+)"'),
         re.compile(r'"(copy_faults_changed|agent_refused|'
                    r'mount_identity_refused)"'))


def found(patterns, texts):
    return {match for pattern in patterns for text in texts
            for match in pattern.findall(text)}


def main():
    root = sys.argv[1]
    texts = []
    for path in glob.glob(os.path.join(root, 'server', '**', '*.cc'),
                          recursive=True):
        with open(path, encoding='utf-8') as stream:
            texts.append(stream.read())
    with open(os.path.join(root, 'docs', 'operations.md'),
              encoding='utf-8') as stream:
        document = stream.read()
    codes = found(CODES, texts) | set(REFUSALS)
    kinds = found(KINDS, texts)
    sections = set(re.findall(r'^### ([A-Z_]+)$', document, re.M))
    wrong = [f'{code}: no section in docs/operations.md'
             for code in sorted(codes - sections)]
    wrong += [f'{code}: docs/operations.md has a section, the source no such '
              'check' for code in sorted(sections - codes)]
    wrong += [f'{kind}: not among the events of docs/operations.md'
              for kind in sorted(kinds) if f'`{kind}`' not in document]
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
