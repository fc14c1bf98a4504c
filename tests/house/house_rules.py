#!/usr/bin/env python3
"""House rules that a script can see. Run by ctest; exits 1 with the places.

house_rules.py ROOT            checks the tree
house_rules.py --self-test     checks that each rule finds what it forbids
"""
import os
import re
import sys

CODE = ('common', 'server', 'agent', 'client', 'tests')

# Directory -> prefixes of ours that it may include. The longest match counts.
ALLOWED = {
    'common': ['common/'],
    'common/rpc': ['common/'],
    'common/config': ['common/'],
    'server/index': ['common/', 'server/index/'],
    'server/placement': ['common/', 'server/index/', 'server/placement/'],
    'server/lifecycle': ['common/', 'server/index/', 'server/placement/',
                         'server/lifecycle/'],
    'server/service': ['common/', 'server/'],
    'server': ['common/', 'server/'],
    'agent/fs': ['common/', 'agent/fs/'],
    'agent/store': ['common/', 'agent/fs/', 'agent/store/'],
    'agent/health': ['common/', 'agent/fs/', 'agent/store/', 'agent/health/'],
    'agent/scrub': ['common/', 'agent/fs/', 'agent/store/', 'agent/health/',
                    'agent/scrub/'],
    'agent/control': ['common/', 'agent/fs/', 'agent/store/',
                      'agent/health/', 'agent/scrub/', 'agent/control/'],
    'agent/service': ['common/', 'agent/'],
    'agent': ['common/', 'agent/'],
    'client': ['common/', 'client/', 'predella/'],
    'tests': ['common/', 'server/', 'agent/', 'client/', 'tests/',
              'predella/'],
}
# The only places that may include gRPC (mains run servers).
GRPC = ('common/rpc/', 'server/service/', 'agent/service/',
        'client/internal/', 'client/cli/reach.cc',
        'server/coordinator', 'server/main.cc', 'agent/agent.',
        'agent/main.cc', 'tests/')
# Includes of a library, or of ours that pull one in, and who may have them.
# (common/rpc/listen.h is addresses alone.)
LIBRARIES = [
    (('grpc/', 'grpcpp/'), GRPC, 'gRPC'),
    (('common/rpc/',), GRPC + ('client/', 'agent/options.'), 'gRPC, by way of '
     'common/rpc'),
    (('rocksdb/',), ('server/index/rocksdb_', 'tests/server/index/',
                     'tests/bench/'),
     'RocksDB: KvStore is the seam'),
]
INCLUDE = r'^\s*#\s*include\s*'
OURS = re.compile(INCLUDE + r'"((?:common|server|agent|client|tests)/[^"]+)"')
ANY = re.compile(INCLUDE + r'[<"]([^>"]+)[>"]')

# Pattern, where it is allowed, what to use instead.
WORDS = [
    (re.compile(r'\babsl::(Mutex|MutexLock|CondVar)\b'), (),
     'predella::Mutex: Debian\'s Abseil is not instrumented for tsan'),
    (re.compile(r'\babsl::Now\('), ('common/clock.cc', 'client/', 'tests/'),
     'the Clock that was passed in'),
    (re.compile(r'\b(std::rand|srand|random_device)\b'), ('common/ids.cc',),
     'the IdGenerator that was passed in'),
    (re.compile(r'\b(sleep_for|sleep_until|usleep|absl::SleepFor)\b'),
     ('client/', 'agent/service/', 'server/coordinator.cc', 'tests/integration/', 'tests/client/',
      'tests/server/service/', 'tests/agent/service/', 'tests/bench/'),
     'a Tick() driven by the clock'),
    (re.compile(r'\bstd::string_view\b'), ('client/cli/', 'common/config/'),
     'absl::string_view: in Debian\'s Abseil it is another type'),
    (re.compile(r'\b(TODO|FIXME|XXX)\b'), (), 'the finished thing'),
    (re.compile(r'\berrno\b'),
     ('agent/fs/', 'common/', 'server/', 'client/', 'tests/', 'agent/main',
      'agent/agent', 'agent/control/disk_executor', 'agent/scrub/idle_io'),
     'the status: agent/fs alone knows the errno table'),
]


def allowed_for(path):
    directory = os.path.dirname(path)
    while directory and directory not in ALLOWED:
        directory = os.path.dirname(directory)
    return ALLOWED.get(directory, [])


def strip_comments(lines):
    for line in lines:
        yield line.split('//')[0]


def check_file(path, text):
    """Yields 'path:line: what'."""
    lines = text.split('\n')
    for number, line in enumerate(lines, 1):
        where = f'{path}:{number}'
        match = OURS.match(line)
        if match and not any(match.group(1).startswith(prefix)
                             for prefix in allowed_for(path)):
            yield f'{where}: may not include {match.group(1)}'
        match = ANY.match(line)
        for prefixes, places, what in LIBRARIES:
            if (match and match.group(1).startswith(prefixes) and
                    not path.startswith(places)):
                yield f'{where}: logic does not include {what}'
        if match and match.group(1).endswith('.grpc.pb.h'):
            if not path.startswith(GRPC):
                yield f'{where}: logic does not include gRPC stubs'
        if len(line) > 80 and '"' not in line and '://' not in line:
            yield f'{where}: {len(line)} columns'
    for number, line in enumerate(strip_comments(lines), 1):
        for pattern, places, instead in WORDS:
            if pattern.search(line) and not path.startswith(places or ('\0',)):
                yield (f'{path}:{number}: {pattern.search(line).group(0)}: '
                       f'use {instead}')
    if path.endswith('.h'):
        guard = 'PREDELLA_' + re.sub(r'[/.]', '_', path).upper() + '_'
        public = re.sub(r'^PREDELLA_CLIENT_INCLUDE_PREDELLA_', 'PREDELLA_',
                        guard)
        if f'#ifndef {guard}' not in text and f'#ifndef {public}' not in text:
            yield f'{path}:1: include guard is not {guard}'


def check_tree(root):
    count = 0
    for top in CODE:
        for directory, _, names in sorted(os.walk(os.path.join(root, top))):
            for name in sorted(names):
                if not name.endswith(('.h', '.cc')):
                    continue
                full = os.path.join(directory, name)
                path = os.path.relpath(full, root)
                count += 1
                with open(full, encoding='utf-8') as stream:
                    yield from check_file(path, stream.read())
    if count < 20:
        yield f'{root}: only {count} files found: is this the source tree?'


def check_links(root):
    """Files that the documents name must exist."""
    link = re.compile(r'\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)')
    documents = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md']
    for directory, _, names in os.walk(os.path.join(root, 'docs')):
        documents += [os.path.relpath(os.path.join(directory, n), root)
                      for n in names if n.endswith('.md')]
    for document in documents:
        with open(os.path.join(root, document), encoding='utf-8') as stream:
            for number, line in enumerate(stream, 1):
                for target in link.findall(line):
                    path = os.path.join(root, os.path.dirname(document),
                                        target)
                    if not os.path.exists(path):
                        yield f'{document}:{number}: {target} does not exist'


def self_test():
    cases = [
        ('server/index/a.cc', '#include "agent/fs/file_system.h"\n'),
        ('agent/store/a.cc', '#include "server/index/kv_store.h"\n'),
        ('common/a.cc', '#include "agent/fs/file_system.h"\n'),
        ('agent/store/a.cc', '#include <grpcpp/grpcpp.h>\n'),
        ('agent/store/a.cc', '#  include <grpc/grpc.h>\n'),
        ('common/a.cc', '#include "common/rpc/grpc_status.h"\n'),
        ('server/placement/a.cc', '#include "common/rpc/grpc_status.h"\n'),
        ('server/index/epoch_table.h', '#include <rocksdb/db.h>\n'),
        ('server/lifecycle/a.cc', '#include "rocksdb/db.h"\n'),
        ('agent/store/a.cc', '#include "predella/v1/x.grpc.pb.h"\n'),
        ('client/cli/a.cc', '#include <grpcpp/grpcpp.h>\n'),
        ('server/lifecycle/a.cc', 'absl::Mutex mu;\n'),
        ('server/lifecycle/a.cc', 'auto t = absl::Now();\n'),
        ('agent/control/a.cc', 'usleep(5);\n'),
        ('agent/store/a.cc', 'std::string_view v;\n'),
        ('agent/store/a.cc', 'if (errno == EIO) {\n'),
        ('common/a.h', '#ifndef WRONG_GUARD\n'),
        ('common/a.cc', 'x' * 81 + '\n'),
    ]
    failed = 0
    for path, text in cases:
        if not list(check_file(path, text)):
            print(f'self-test: nothing found in {path}: {text!r}')
            failed += 1
    good = ('server/service/a.cc',
            '#include <grpcpp/grpcpp.h>\n#include "server/index/kv_store.h"\n')
    found = list(check_file(*good))
    if found:
        print(f'self-test: {found}')
        failed += 1
    print(f'self-test: {len(cases) + 1 - failed} of {len(cases) + 1} as wanted')
    return failed


def main():
    if sys.argv[1] == '--self-test':
        return 1 if self_test() else 0
    root = sys.argv[1]
    found = list(check_tree(root)) + list(check_links(root))
    for line in found:
        print(line)
    print(f'{len(found)} findings')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
