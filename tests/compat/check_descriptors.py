#!/usr/bin/env python3
"""Refuses changes that break users of the API or of stored data.

check_descriptors.py PROTO_DIR GOLDEN     what GOLDEN lists must still be there
check_descriptors.py --update PROTO_DIR GOLDEN
check_descriptors.py --self-test

GOLDEN has a line for every field, enum value and method of a predella package:
name, number and type. Additions are fine (and reported, so that they are
written down); a line that is gone or different is not.
"""
import os
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

FIELD = descriptor_pb2.FieldDescriptorProto


def describe(files):
    lines = set()

    def message(prefix, m):
        name = f'{prefix}.{m.name}'
        for f in m.field:
            kind = f.type_name or FIELD.Type.Name(f.type)[5:].lower()
            label = FIELD.Label.Name(f.label)[6:].lower()
            extra = ''
            if f.proto3_optional:
                extra = ' presence'
            elif f.HasField('oneof_index'):
                extra = ' in ' + m.oneof_decl[f.oneof_index].name
            lines.add(f'field {name}.{f.name} = {f.number} {label} {kind}'
                      f'{extra}')
        for nested in m.nested_type:
            message(name, nested)
        for e in m.enum_type:
            enum(name, e)

    def enum(prefix, e):
        for v in e.value:
            lines.add(f'enum {prefix}.{e.name}.{v.name} = {v.number}')

    for file in files:
        if not file.package.startswith('predella'):
            continue
        for m in file.message_type:
            message(file.package, m)
        for e in file.enum_type:
            enum(file.package, e)
        for s in file.service:
            for method in s.method:
                lines.add(
                    f'method {file.package}.{s.name}.{method.name}'
                    f'({"stream " * method.client_streaming}'
                    f'{method.input_type}) -> '
                    f'({"stream " * method.server_streaming}'
                    f'{method.output_type})')
    return lines


def load(proto_dir):
    protos = []
    for directory, _, names in os.walk(os.path.join(proto_dir, 'predella')):
        protos += [os.path.relpath(os.path.join(directory, n), proto_dir)
                   for n in names if n.endswith('.proto')]
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(['protoc', '-I', proto_dir, '--include_imports',
                        f'--descriptor_set_out={out.name}', *sorted(protos)],
                       check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read()).file


def compare(now, golden):
    """Returns (broken, added)."""
    return sorted(golden - now), sorted(now - golden)


def self_test():
    file = descriptor_pb2.FileDescriptorProto(package='predella.v1')
    m = file.message_type.add(name='M')
    m.field.add(name='a', number=1, type=FIELD.TYPE_INT64,
                label=FIELD.LABEL_OPTIONAL)
    before = describe([file])
    m.field[0].number = 2
    if not compare(describe([file]), before)[0]:
        print('self-test: a renumbered field was not found')
        return 1
    m.field[0].number = 1
    m.field.add(name='b', number=2, type=FIELD.TYPE_INT64,
                label=FIELD.LABEL_OPTIONAL)
    broken, added = compare(describe([file]), before)
    if broken or len(added) != 1:
        print('self-test: an addition was not told from a break')
        return 1
    print('self-test: passed')
    return 0


def main():
    if sys.argv[1] == '--self-test':
        return self_test()
    update = sys.argv[1] == '--update'
    proto_dir, golden_path = sys.argv[-2:]
    now = describe(load(proto_dir))
    if update:
        with open(golden_path, 'w', encoding='utf-8') as stream:
            stream.write('\n'.join(sorted(now)) + '\n')
        return 0
    with open(golden_path, encoding='utf-8') as stream:
        golden = set(stream.read().split('\n')) - {''}
    broken, added = compare(now, golden)
    for line in broken:
        print('gone or changed:', line)
    for line in added:
        print('not in the golden set (run with --update):', line)
    print(f'{len(golden)} entries, {len(broken)} broken, {len(added)} added')
    return 1 if broken or added else 0


if __name__ == '__main__':
    sys.exit(main())
