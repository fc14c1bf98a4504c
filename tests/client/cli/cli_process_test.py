"""The command line and the daemons as processes: signals, what is left
behind, notices to a service manager, and the end of a supervisor."""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                '..', '..', 'integration'))
from cluster import ClusterTest, binary, random_bytes, run, wait_until
from serve_test import Serve, alive

UNKNOWN = '7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0'


class CommandLineTest(ClusterTest):
    priorities = (100, 200)

    def open_uploads(self):
        return int(self.cluster.cli('cluster', 'status', '-o',
                                    'json').json['openUploadCount'])

    def test_interrupted_put_gives_its_upload_up(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            put = self.cluster.spawn_cli('image', 'put', '-')
            put.stdin.write(random_bytes(3 << 20, 1))
            put.stdin.flush()
            wait_until('the upload is open', lambda: self.open_uploads() == 1)
            wait_until('it waits for input', lambda p=put: self.waits(p.pid))
            put.send_signal(number)
            # The pipe stays open: it is the signal that ends it.
            self.assertEqual(put.wait(30), -number)
            self.assertIn(b'nothing was stored', put.stderr.read())
            for stream in (put.stdin, put.stdout, put.stderr):
                stream.close()
            self.assertEqual(self.open_uploads(), 0)

    @staticmethod
    def waits(pid):
        with open(f'/proc/{pid}/wchan', encoding='ascii') as f:
            return 'poll' in f.read()

    def test_get_into_a_fifo(self):
        data = random_bytes((1 << 20) + 7, 2)
        image = self.cluster.put(data)
        fifo = os.path.join(self.cluster.top, 'fifo')
        os.mkfifo(fifo)
        with subprocess.Popen(['cat', fifo], stdout=subprocess.PIPE) as cat:
            get = self.cluster.spawn_cli('image', 'get', image, '-o', fifo)
            got = cat.stdout.read()
        _, err = get.communicate(timeout=30)
        self.assertEqual(get.returncode, 0, err)
        self.assert_same(got, data, 'through the fifo')
        self.assertEqual([n for n in os.listdir(self.cluster.top)
                          if n.startswith('fifo')], ['fifo'])

    def test_removal_goes_on_but_not_with_a_wrong_id(self):
        image = self.cluster.put(b'x')
        wrong = self.cluster.cli('image', 'rm', image, '../../etc/passwd',
                                 check=False)
        self.assertEqual((wrong.code, wrong.text), (2, ''), wrong.err)
        missing = self.cluster.cli('image', 'rm', UNKNOWN, image, check=False)
        self.assertEqual((missing.code, missing.text),
                         (3, f'deleted {image}\n'), missing.err)

    def test_doctor_stores_and_removes(self):
        doctor = self.cluster.cli('doctor', '--write-test')
        self.assertIn('read back and deleted', doctor.text)
        self.assertTrue(doctor.text.endswith('all is well\n'), doctor.text)
        self.assertEqual(self.cluster.cli('image', 'ls', '-o',
                                          'json').json['images'], [])

    def test_what_the_python_package_does(self):
        top = self.cluster.top
        for arguments in (['adopt', '/x', '--dry-run'],
                          ['glance', '--help'],
                          ['mount', 'impact', 'store-1', '--glance']):
            done = run([binary('predella'), *arguments],
                       env={'PATH': '/nowhere'})
            self.assertEqual(3, done.code)
            self.assertIn('docs/glance.md', done.err)
        tool = os.path.join(top, 'predella-glance')
        with open(tool, 'w', encoding='utf-8') as stream:
            stream.write('#!/bin/sh\necho "$PREDELLA_ENDPOINT" "$@"\n'
                         'exec "$PREDELLA_PROGRAM" --version\n')
        os.chmod(tool, 0o755)
        for arguments, passed in (
                (['glance', 'audit', '--older-than', '1', '--help'],
                 'audit --older-than 1 --help'),
                (['adopt', '--dry-run', '/x'], 'adopt --dry-run /x'),
                (['mount', 'impact', 'a', 'b', '--glance', '--config', 'c'],
                 'impact --config c a b')):
            done = run([binary('predella'), '--endpoint', 'unix:/e',
                        *arguments],
                       env={'PATH': f'{top}:{os.environ["PATH"]}'})
            self.assertEqual(0, done.code, done.err)
            self.assertEqual(f'unix:/e {passed}', done.text.splitlines()[0])
            self.assertIn('predella ', done.text.splitlines()[1])

    def test_completion(self):
        script = self.cluster.cli('completion', 'bash').text
        for words, want in ((['image', 'p'], 'put'),
                            (['mount', 'retire', '--accept-l'], '--accept-lost'),
                            (['serve', '--data'], '--datadirs'),
                            (['image', 'ls', '-o', 'j'], 'json')):
            with self.subTest(words=words):
                line = ' '.join(f'"{w}"'
                                for w in [binary('predella')] + words)
                done = run(['bash', '-c', f'{script}\nCOMP_WORDS=({line})\n'
                            f'COMP_CWORD={len(words)}\n_predella\n'
                            'printf "%s\\n" "${COMPREPLY[@]}"'])
                self.assertEqual(done.text.split(), [want], done.err)


class Listener:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self, top):
        self.path = os.path.join(top, 'notify')
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(30)

    def until(self, word):
        while True:
            text = self.socket.recv(4096).decode()
            if word in text:
                return text

    def close(self):
        self.socket.close()
        os.unlink(self.path)


class DaemonTest(unittest.TestCase):
    def setUp(self):
        # Short: the path of a Unix socket has at most 107 bytes.
        directory = tempfile.TemporaryDirectory(prefix='pp-', dir='/tmp')
        self.addCleanup(directory.cleanup)
        self.top = directory.name
        self.mount = os.path.join(self.top, 'm')
        os.mkdir(self.mount)
        done = run([binary('predella'), 'mount', 'init', self.mount])
        self.assertEqual(done.code, 0, done.err)

    def command(self, which):
        if which == 'coordinator':
            return [binary('predella-coordinator'), '--state-dir',
                    os.path.join(self.top, 's'), '--listen',
                    f'unix:{self.top}/c']
        return [binary('predella-agent'), '--name', 'm', '--path', self.mount,
                '--coordinator', f'unix:{self.top}/c', '--listen',
                f'unix:{self.top}/a']

    def start(self, argv, **options):
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_service_manager_hears(self):
        for which, word in (('coordinator', 'serving at unix:'),
                            ('agent', f'mount m at {self.mount}')):
            with self.subTest(which=which):
                listener = Listener(self.top)
                process = self.start(
                    self.command(which),
                    env={**os.environ, 'NOTIFY_SOCKET': listener.path})
                self.assertIn(word, listener.until('READY=1'))
                process.terminate()
                self.assertIn('STATUS=', listener.until('STOPPING=1'))
                self.assertEqual(process.wait(40), 0)
                listener.close()

    def test_end_with_the_pipe(self):
        for which in ('coordinator', 'agent'):
            with self.subTest(which=which):
                read, write = os.pipe()
                listener = Listener(self.top)
                process = self.start(
                    self.command(which) + [f'--parent-watch-fd={read}'],
                    pass_fds=(read,),
                    env={**os.environ, 'NOTIFY_SOCKET': listener.path})
                os.close(read)
                listener.until('READY=1')
                self.assertIsNone(process.poll())
                os.close(write)
                listener.until('STOPPING=1')
                self.assertEqual(process.wait(40), 0)
                listener.close()

    def test_end_with_the_parent(self):
        for which in ('coordinator', 'agent'):
            with self.subTest(which=which):
                listener = Listener(self.top)
                parent = self.start(
                    ['sh', '-c', '"$@" & echo $! > "$0"; wait',
                     os.path.join(self.top, 'pid'), *self.command(which),
                     '--die-with-parent'],
                    env={**os.environ, 'NOTIFY_SOCKET': listener.path})
                listener.until('READY=1')
                with open(os.path.join(self.top, 'pid'),
                          encoding='ascii') as f:
                    pid = int(f.read())
                self.assertTrue(alive(pid))
                parent.kill()
                listener.until('STOPPING=1')
                wait_until('it is gone', lambda p=pid: not alive(p), 40)
                listener.close()

    def test_a_wrong_configuration_has_its_exit_code(self):
        for which in ('coordinator', 'agent'):
            for wrong in ('--parent-watch-fd=987', '--listen=nowhere',
                          '--no-such-option'):
                with self.subTest(which=which, wrong=wrong):
                    done = run(self.command(which) + [wrong], timeout=30)
                    self.assertEqual(done.code, 2, done.err)
                    self.assertIn(wrong.split('=')[-1], done.err)


class ServeProcessTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='pq-', dir='/tmp')
        self.addCleanup(directory.cleanup)
        self.top = directory.name
        for name in ('a', 'b'):
            os.mkdir(os.path.join(self.top, name))
        self.listener = Listener(self.top)
        self.addCleanup(self.listener.close)
        self.serve = Serve(
            self.top, '--init', '--datadirs',
            f'{self.top}/a:1,{self.top}/b:2', '--state-dir',
            os.path.join(self.top, 's'), '--endpoint-file',
            os.path.join(self.top, 'endpoint'),
            env={'NOTIFY_SOCKET': self.listener.path})
        self.addCleanup(self.end)
        self.serve.wait_ready()

    def end(self):
        self.serve.stop(signal.SIGKILL)
        for reader in self.serve.readers:
            reader.join(10)

    def test_one_ready_and_one_stopping_of_its_own(self):
        # The first datagram of all: its children have sent none.
        self.assertEqual(
            self.listener.socket.recv(4096).decode(),
            f'READY=1\nSTATUS=2 of 2 mounts take uploads at unix:{self.top}'
            '/s/run/coordinator.sock\n')
        self.assertEqual(self.serve.stop(), 0)
        self.assertIn('STOPPING=1\n', self.listener.socket.recv(4096).decode())
        self.listener.socket.settimeout(0)
        with self.assertRaises(BlockingIOError):
            self.listener.socket.recv(4096)

    def test_killed_it_takes_all_its_children_along(self):
        children = self.serve.children()
        self.assertEqual(len(children), 3)
        self.serve.stop(signal.SIGKILL)
        wait_until('they are gone',
                   lambda: not [p for p in children if alive(p)], 40)


class JsonTest(ClusterTest):
    priorities = (100,)

    def test_everything_parses(self):
        image = self.cluster.put(b'x')
        for command, field in (('cluster status', 'checks'),
                               ('mount ls', 'mounts'),
                               ('mount stat store-1', 'uid'),
                               ('image ls', 'images'),
                               (f'image stat {image}', 'generation'),
                               (f'image explain {image}', 'verdicts'),
                               ('placement explain', 'verdicts')):
            with self.subTest(command=command):
                done = self.cluster.cli(*command.split(), '-o', 'json')
                self.assertIn(field, json.loads(done.out))


# A class without tests of its own.
del ClusterTest

if __name__ == '__main__':
    unittest.main(verbosity=2)
