"""`predella serve`: one command for a coordinator and an agent a directory."""
import datetime
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from cluster import binary, run, wait_until


class Serve:
    def __init__(self, top, *args, env=None):
        self.top = top
        self.env = {**os.environ, 'XDG_RUNTIME_DIR': top,
                    'PREDELLA_RUN_DIR': os.path.join(top, 'rundir'),
                    **(env or {})}
        self.process = subprocess.Popen(
            [binary('predella'), 'serve', *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env,
            text=True)
        self.err = []
        self.ready = ''
        self.absent = []
        self.seen = threading.Event()
        self.readers = [threading.Thread(target=self._read_err),
                        threading.Thread(target=self._read_out)]
        for reader in self.readers:
            reader.start()

    def _read_err(self):
        with self.process.stderr as stream:
            for line in stream:
                self.err.append(line)

    def _read_out(self):
        with self.process.stdout as stream:
            for line in stream:
                if line.startswith('READY'):
                    self.ready = line.strip()
                    self.seen.set()
                if line.startswith('ABSENT'):
                    self.absent.append(line.strip())

    def wait_ready(self):
        if not self.seen.wait(25):
            raise AssertionError('no READY: ' + ''.join(self.err[-20:]))
        return self.ready

    def children(self):
        path = f'/proc/{self.process.pid}/task'
        pids = []
        for task in os.listdir(path):
            with open(f'{path}/{task}/children', encoding='ascii') as f:
                pids += [int(p) for p in f.read().split()]
        return pids

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(45)


def alive(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


class ServeTest(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix='ps-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        self.state = os.path.join(self.top, 'state')
        self.dirs = [os.path.join(self.top, n) for n in ('a', 'b', 'c')]
        for d in self.dirs:
            os.mkdir(d)
        self.datadirs = ','.join(f'{d}:{p}' for d, p in
                                 zip(self.dirs, (100, 200, 300)))
        self.running = []

    def serve(self, *args, datadirs=None):
        s = Serve(self.top, '--datadirs', datadirs or self.datadirs,
                  '--state-dir', self.state, *args)
        self.running.append(s)
        self.addCleanup(self.end, s)
        return s

    def end(self, s):
        s.stop(signal.SIGKILL)
        for reader in s.readers:
            reader.join(10)

    def cli(self, *args, data=None):
        return run([binary('predella'), *args], data,
                   env={'PREDELLA_ENDPOINT':
                        f'unix:{self.state}/run/coordinator.sock'})

    def refused(self, *args, datadirs=None):
        """The sentence that serve ends with."""
        result = run([binary('predella'), 'serve', '--datadirs',
                      datadirs or self.datadirs, '--state-dir', self.state,
                      *args], timeout=30)
        self.assertNotEqual(result.code, 0, result.err)
        return result.err

    def test_starts_stores_and_stops(self):
        # Another serve of this machine keeps its pointer file.
        alone = not os.path.exists('/run/predella/endpoint')
        s = self.serve('--init')
        self.assertRegex(s.wait_ready(), r'^READY .*unix:')
        put = self.cli('image', 'put', '-', data=b'hello')
        self.assertEqual(put.code, 0, put.err)
        image = put.text.split()[-1]
        self.assertEqual(self.cli('image', 'get', image).out, b'hello')
        # The pointer file finds it without an endpoint.
        env = dict(s.env)
        found = subprocess.run([binary('predella'), 'image', 'ls'], env=env,
                               capture_output=True, text=True, check=False)
        if alone:
            self.assertIn(image, found.stdout, found.stderr)
        else:
            print('a serve of this machine has the pointer file')
        children = s.children()
        self.assertEqual(len(children), 4)
        self.assertEqual(s.stop(), 0)
        self.assertFalse([p for p in children if alive(p)])

    def test_killed_it_leaves_nothing_and_starts_again_at_once(self):
        s = self.serve('--init')
        s.wait_ready()
        image = self.cli('image', 'put', '-', data=b'kept').text.split()[-1]
        # An open stream is no reason for an agent to outlive it.
        upload = subprocess.Popen(
            [binary('predella'), '--endpoint',
             f'unix:{self.state}/run/coordinator.sock', 'image', 'put', '-'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        upload.stdin.write(bytes(5 << 20))
        upload.stdin.flush()
        children = s.children()
        s.stop(signal.SIGKILL)
        wait_until('nothing is left running', lambda: not
                   [p for p in children if alive(p)])
        again = self.serve()
        again.wait_ready()
        self.assertFalse([p for p in children if alive(p)])
        self.assertEqual(self.cli('image', 'get', image).out, b'kept')
        out, err = upload.communicate(b'the end', timeout=60)
        self.assertEqual(upload.returncode, 0, err.decode())
        self.assertEqual(self.cli('image', 'get', out.decode().split()[-1]).out,
                         bytes(5 << 20) + b'the end')

    def test_a_child_that_dies_is_restarted_visibly(self):
        s = self.serve('--init')
        s.wait_ready()
        before = s.children()
        for pid in before[1:3]:
            os.kill(pid, signal.SIGKILL)
        wait_until('the children are back', lambda: len(s.children()) == 4)

        def stores():
            return self.cli('image', 'put', '-', data=b'x').code == 0
        wait_until('it stores again', stores)
        self.assertRegex(''.join(s.err), 'child_died.*again_in_ms')

    def test_second_serve_is_refused(self):
        s = self.serve('--init')
        s.wait_ready()
        self.assertIn(str(s.process.pid), self.refused())

    def test_directory_without_label(self):
        self.assertRegex(self.refused(), 'init')
        self.assertEqual(os.listdir(self.dirs[0]), [])

    def test_init_refuses_files_with_their_count(self):
        for i in range(3):
            with open(os.path.join(self.dirs[1], f'f{i}'), 'w',
                      encoding='ascii') as f:
                f.write('x')
        self.assertRegex(self.refused('--init'), r'\b3\b')

    def test_lost_state_directory(self):
        s = self.serve('--init')
        s.wait_ready()
        self.assertEqual(s.stop(), 0)
        shutil.rmtree(self.state)
        self.assertRegex(self.refused(), 'state-dir')

    def test_sentences(self):
        a, b = self.dirs[:2]
        os.mkdir(os.path.join(a, 'in'))
        same = os.path.join(self.top, 'x', 'a')
        os.makedirs(same)
        with open(os.path.join(self.top, 'file'), 'w', encoding='ascii'):
            pass
        for datadirs, sentence in (
                (f'{self.top}/file:1', 'not a directory'),
                (f'{self.top}/none:1', 'does not exist|not a directory'),
                (f'{a}:one', 'not a number'),
                (f'{a}:1,{b}', 'priority'),
                (f'{a}:1,{a}:2', 'twice'),
                (f'{a}:1,{a}/in:2', 'inside'),
                (f'{a}:1,{same}:2', 'NAME='),
                ('', 'datadirs')):
            with self.subTest(datadirs=datadirs):
                self.assertRegex(self.refused('--init', datadirs=datadirs
                                              or ' '), sentence)

    def test_options_reach_the_children(self):
        s = self.serve('--init', '--file-mode', '0600', '--upload-ttl', '1h')
        s.wait_ready()
        image = self.cli('image', 'put', '-', data=b'x').text.split()[-1]
        path = os.path.join(self.dirs[0], image)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        upload = subprocess.Popen(
            [binary('predella'), '--endpoint',
             f'unix:{self.state}/run/coordinator.sock', 'image', 'put', '-'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        upload.stdin.write(bytes(5 << 20))
        upload.stdin.flush()

        def uploads():
            listed = self.cli('upload', 'ls', '-o', 'json')
            return json.loads(listed.out).get('uploads')
        wait_until('the upload is open', uploads)
        open_upload = uploads()[0]
        lasts = [datetime.datetime.fromisoformat(
            re.sub(r'(\.\d+)?Z$', '', open_upload[key]))
                 for key in ('liveTime', 'expireTime')]
        self.assertAlmostEqual((lasts[1] - lasts[0]).total_seconds(), 3600,
                               delta=60)
        upload.communicate(timeout=30)

    def test_init_does_not_label_what_is_not_mounted(self):
        self.assertRegex(self.refused('--init', '--require-mountpoint'),
                         'nothing is mounted on')
        self.assertEqual(os.listdir(self.dirs[0]), [])

    def test_what_a_child_would_refuse_is_said_at_once(self):
        for args, sentence in (
                (('--file-mode', '99'), 'octal'),
                (('--file-group', 'no-such-group'), 'no group'),
                (('--disk-threads', '0'), '--disk-threads'),
                (('--drain-timeout', 'soon'), 'drain-timeout'),
                (('--spread', 'evenly'), 'most-available or weighted'),
                (('--near-full', '150'), 'near-full'),
                (('--upload-ttl', '-1s'), 'upload-ttl')):
            with self.subTest(args=args):
                self.assertRegex(self.refused('--init', *args), sentence)
                self.assertFalse(os.path.exists(self.state))
                self.assertEqual(os.listdir(self.dirs[0]), [])

    def test_glance_configuration(self):
        conf = os.path.join(self.top, 'glance-api.conf')
        with open(conf, 'w', encoding='ascii') as f:
            f.write('[DEFAULT]\nenabled_backends = fast:predella\n\n[fast]\n'
                    f'multifilesystem_store_datadir = {self.datadirs}\n')
        s = Serve(self.top, '--glance-conf', conf, '--state-dir', self.state,
                  '--init')
        self.addCleanup(self.end, s)
        s.wait_ready()
        mounts = json.loads(self.cli('mount', 'ls', '-o', 'json').out)
        self.assertEqual([(m['name'], m['priority'])
                          for m in mounts['mounts']],
                         [('mounts/a', 100), ('mounts/b', 200),
                          ('mounts/c', 300)])

    def test_listens_on_tcp_for_other_hosts(self):
        s = self.serve('--init', '--listen', '127.0.0.1:17400')
        ready = s.wait_ready()
        self.assertIn('127.0.0.1:17400', ready)
        put = run([binary('predella'), '--endpoint', '127.0.0.1:17400',
                   'image', 'put', '-'], b'by tcp')
        self.assertEqual(put.code, 0, put.err)
        mounts = json.loads(self.cli('mount', 'ls', '-o', 'json').out)
        for m in mounts['mounts']:
            self.assertTrue([a for a in m['addresses']
                             if re.match(r'127\.0\.0\.1:\d+$', a)], m)

    @unittest.skipUnless(shutil.which('grpcurl'), 'grpcurl is not there')
    def test_health_alone(self):
        s = self.serve('--init', '--health-listen', '127.0.0.1:17500')
        s.wait_ready()

        def grpcurl(*args):
            return run(['grpcurl', '-plaintext', *args])
        for port, service in ((17500, 'predella.v1.ImageService'),
                              (17510, 'predella.v1.ChunkService'),
                              (17512, 'predella.v1.ChunkService')):
            # An agent looks at its own health now and then.
            wait_until(f'{service} at {port} is SERVING',
                       lambda p=port, s=service: grpcurl(
                           '-d', json.dumps({'service': s}), f'127.0.0.1:{p}',
                           'grpc.health.v1.Health/Check').json ==
                       {'status': 'SERVING'})
            listed = grpcurl(f'127.0.0.1:{port}', 'list')
            self.assertNotIn('predella', listed.text)

    def test_an_agent_whose_port_is_taken_is_named(self):
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(('127.0.0.1', 17611))
        taken.listen()
        s = self.serve('--init', '--listen', '127.0.0.1:17600')
        s.wait_ready()
        wait_until('the mount is named', lambda: s.absent)
        self.assertRegex(s.absent[0], r'^ABSENT b \(.*its agent exited with code')
        self.assertIn('127.0.0.1:17611', ''.join(s.err))
        self.assertEqual(self.cli('image', 'put', '-', data=b'x').code, 0)

    def test_absent_directory_is_named_after_ready(self):
        s = self.serve('--init')
        s.wait_ready()
        s.stop()
        os.rename(self.dirs[2], self.dirs[2] + '.away')
        os.mkdir(self.dirs[2])
        # Not even --init labels what was a mount before.
        s = self.serve('--init')
        s.wait_ready()
        wait_until('the mount is named', lambda: s.absent)
        self.assertRegex(s.absent[0], r'^ABSENT c \(ABSENT')
        self.assertEqual(os.listdir(self.dirs[2]), [])
        os.rmdir(self.dirs[2])
        os.rename(self.dirs[2] + '.away', self.dirs[2])

        def online():
            mounts = json.loads(self.cli('mount', 'ls', '-o', 'json').out)
            return all(m['health'] == 'HEALTH_ONLINE'
                       for m in mounts['mounts'])
        wait_until('it takes part again', online)


if __name__ == '__main__':
    unittest.main(verbosity=2)
