"""Runs every command of docs/diagnostics.md and compares the answers.

PREDELLA_UPDATE_DOCS=1 writes the answers into the document instead.
"""
import os
import re
import shutil
import subprocess
import unittest

from cluster import Cluster, run

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                        '..', '..', 'docs', 'diagnostics.md')
IMAGE = '7f4c0c1e-3a52-4f0e-9a53-0c5f3f9f2b11'
KEEP = {IMAGE, '00000000-0000-4000-8000-000000000000',
        '11111111-1111-4111-8111-111111111111'}
BLOCK = re.compile(r'```console\n\$ (.*)\n((?:.*\n)*?)```\n')


def grpcurl():
    tools = os.path.join(os.environ.get('XDG_CACHE_HOME') or
                         os.path.expanduser('~/.cache'), 'predella', 'bin')
    return shutil.which('grpcurl', path=tools + ':' + os.environ['PATH'])


def normalise(text):
    """What differs from run to run, in angle brackets."""
    def uuid(match):
        return match.group(0) if match.group(0) in KEEP else '<uuid>'
    for pattern, value in (
            (r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}',
             uuid),
            (r'20\d\d-\d\d-\d\dT[0-9:.]+Z', '<time>'),
            (r'\b\d+-\d+-[0-9a-f]{8}\b', '<generation>'),
            (r'"location_key": "[0-9a-f]{32}"', '"location_key": "<hex>"'),
            (r'"read_capability": "[^"]*"', '"read_capability": "<token>"'),
            (r'/tmp/pr-[^/"]*', '<dir>'),
            (r'"host": "[^"]*"', '"host": "<host>"'),
            (r'"(agent_version|coordinator_version)": "[^"]*"',
             r'"\1": "<version>"'),
            (r'"((?:available|allocated|reserve|promised|used)\w*|agent_pid|'
             r'epoch)": "?[0-9.e+]+"?', r'"\1": <n>'),
            (r'("(?:size_bytes|needed_bytes)": )"\d{7,}"', r'\1<n>'),
            (r'\b\d+(\.\d+)? ([KMGTPE]iB|B)\b', '<size>'),
            (r'\b\d+(\.\d+)? %', '<n> %'),
            (r'pid \d+', 'pid <n>'),
            # There for the two seconds until the next heartbeat.
            (r' *"promised_bytes": <n>,\n', '')):
        text = re.sub(pattern, value, text)
    return text


@unittest.skipUnless(grpcurl(), 'grpcurl is not here')
class DiagnosticsTest(unittest.TestCase):
    maxDiff = None

    def test_every_command_of_the_document(self):
        cluster = Cluster(priorities=(100, 200, 200))
        self.addCleanup(cluster.stop)
        cluster.start()
        cluster.put(b'hello', '--id', IMAGE)
        env = {'SOCKET': f'{cluster.sockets}/c',
               'AGENT': f'{cluster.sockets}/store-1',
               'PATH': os.path.dirname(grpcurl()) + ':' + os.environ['PATH']}
        with open(DOCUMENT, encoding='utf-8') as f:
            document = f.read()
        blocks = BLOCK.findall(document)
        self.assertGreaterEqual(len(blocks), 15)
        update = os.environ.get('PREDELLA_UPDATE_DOCS') == '1'
        answers = []
        for command, wanted in blocks:
            result = run(['bash', '-c', command + ' 2>&1'], env=env)
            # grpcurl indents what it prints of error details with tabs.
            got = normalise(result.text.replace('\t', '    ').rstrip() + '\n')
            got = re.sub(r' +\n', '\n', got)
            answers.append(got)
            if not update:
                with self.subTest(command=command):
                    self.assertEqual(got, wanted)
        if update:
            remaining = iter(answers)
            document = BLOCK.sub(
                lambda m: f'```console\n$ {m.group(1)}\n{next(remaining)}```\n',
                document)
            with open(DOCUMENT, 'w', encoding='utf-8') as f:
                f.write(document)


if __name__ == '__main__':
    unittest.main(verbosity=2)
