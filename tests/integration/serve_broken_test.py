"""`predella serve` starts and stops whatever is wrong with a directory of it.

The faults are there before it starts, as after a reboot with a dead disk. Needs
root and FUSE.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from cluster import binary, run, wait_until
from fault_mount import FaultMount, need_faultfs
from serve_test import Serve

# An agent that hangs is let go a few seconds after its own end; this machine
# may be busy.
ENDS_WITHIN = 30


class BrokenTest(unittest.TestCase):
    def setUp(self):
        need_faultfs(self)
        self.top = tempfile.mkdtemp(prefix='pb-', dir='/tmp')
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        self.state = os.path.join(self.top, 'state')
        self.dirs = {}

    def directory(self, name):
        self.dirs[name] = os.path.join(self.top, name)
        os.mkdir(self.dirs[name])
        return self.dirs[name]

    def fault_mount(self, name):
        mount = FaultMount(self)
        self.dirs[name] = mount.path
        return mount

    def args(self):
        return ['--datadirs', ','.join(
            f'{name}={path}:{100 + i}'
            for i, (name, path) in enumerate(self.dirs.items())),
                '--state-dir', self.state]

    def serve(self, *args):
        s = Serve(self.top, *self.args(), *args)
        self.addCleanup(self.end, s)
        s.wait_ready()
        return s

    def end(self, s):
        s.stop(signal.SIGKILL)
        for reader in s.readers:
            reader.join(10)

    def cli(self, *args, data=None):
        return run([binary('predella'), *args], data,
                   env={'PREDELLA_ENDPOINT':
                        f'unix:{self.state}/run/coordinator.sock'})

    def health(self):
        mounts = json.loads(self.cli('mount', 'ls', '-o', 'json').out)
        return {m['name'].split('/')[1]: m['health'].replace('HEALTH_', '')
                for m in mounts['mounts']}

    def put(self, data):
        result = self.cli('image', 'put', '-', data=data)
        self.assertEqual(result.code, 0, result.err)
        return result.text.split()[-1]

    def test_whatever_is_wrong_the_others_are_served(self):
        eio = self.fault_mount('eio')
        eio_read = self.fault_mount('eio-read')
        stale = self.fault_mount('stale')
        lock = self.fault_mount('lock')
        damaged = self.directory('damaged')
        gone = self.directory('gone')
        self.directory('well')
        s = self.serve('--init')
        image = self.put(b'on the first')
        self.assertEqual(s.stop(), 0)

        label = os.path.join(damaged, '.predella', 'mount.id')
        with open(label, 'rb') as f:
            good = f.read()

        def hurt():
            eio.rule('*', 'error:EIO')
            eio_read.rule('read', 'error:EIO')
            stale.rule('*', 'error:ESTALE')
            lock.rule('flock', 'error:EIO')
            with open(label, 'wb') as f:
                f.write(good[:-3] + b'abc')
            os.rename(gone, gone + '.away')

        def heal():
            for mount in (eio, eio_read, stale, lock):
                mount.heal()
            with open(label, 'wb') as f:
                f.write(good)
            os.rename(gone + '.away', gone)

        hurt()
        s = self.serve()
        wait_until('each is named', lambda: len(s.absent) == 6)
        self.assertEqual({line.split()[1] for line in s.absent},
                         set(self.dirs) - {'well'})
        err = ''.join(s.err)
        self.assertIn(f'{eio.path} cannot be looked at: Input/output', err)
        self.assertIn(f'{stale.path} cannot be looked at: Stale file', err)
        self.assertIn(f'{gone} does not exist; mount gone', err)
        self.assertNotRegex(err, f'{eio.path}.*exist')
        health = self.health()
        self.assertEqual(
            {n: h for n, h in health.items() if n in ('eio', 'eio-read')},
            {'eio': 'FAILED', 'eio-read': 'FAILED'})
        self.assertEqual(
            {n: h for n, h in health.items()
             if n in ('stale', 'lock', 'damaged', 'gone', 'well')},
            {'stale': 'ABSENT', 'lock': 'FAILED', 'damaged': 'ABSENT',
             'gone': 'ABSENT', 'well': 'ONLINE'})
        other = self.put(b'stored meanwhile')
        self.assertEqual(self.cli('image', 'get', other).out,
                         b'stored meanwhile')
        # What the disk holds is not said not to exist.
        self.assertNotEqual(self.cli('image', 'get', image).code, 3)
        children = s.children()
        heal()
        wait_until('all are ONLINE',
                   lambda: set(self.health().values()) == {'ONLINE'}, 60)
        self.assertEqual(s.children(), children, 'nothing was started again')
        self.assertEqual(self.cli('image', 'get', image).out, b'on the first')
        self.assertEqual(s.stop(), 0)

        # All at once: there is nothing to serve, and it waits for it.
        hurt()
        os.rename(self.dirs['well'], self.dirs['well'] + '.away')
        s = self.serve()
        wait_until('each is named', lambda: len(s.absent) == 7)
        heal()
        os.rename(self.dirs['well'] + '.away', self.dirs['well'])
        wait_until('all are ONLINE',
                   lambda: set(self.health().values()) == {'ONLINE'}, 60)
        self.assertEqual(self.cli('image', 'get', other).out,
                         b'stored meanwhile')
        self.assertEqual(s.stop(), 0)

    def test_a_new_directory_that_fails_is_refused(self):
        new = self.fault_mount('new')
        well = self.directory('well')
        new.rule('*', 'error:EIO')
        result = run([binary('predella'), 'serve', *self.args(), '--init'],
                     timeout=60)
        # 2 would keep a service manager from trying again.
        self.assertEqual(result.code, 5, result.err)
        self.assertRegex(result.err, f'error: {new.path}.*Input/output error')
        self.assertEqual(os.listdir(well), [])
        self.assertFalse(os.path.exists(self.state))

    def test_a_copy_of_a_directory_is_refused(self):
        self.directory('a')
        s = self.serve('--init')
        self.assertEqual(s.stop(), 0)
        self.dirs['b'] = os.path.join(self.top, 'b')
        shutil.copytree(self.dirs['a'], self.dirs['b'])
        result = run([binary('predella'), 'serve', *self.args()], timeout=60)
        self.assertEqual(result.code, 5, result.err)
        self.assertRegex(result.err, 'both bear the label of mount a')

    def ends(self, process, what):
        """Its exit code, and no thread of it is left in the kernel."""
        begun = time.monotonic()
        try:
            code = process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.fail(f'{what} did not end within {ENDS_WITHIN} s')
        print(f'{what} ended after {time.monotonic() - begun:.1f} s')
        return code

    def test_a_hung_directory_holds_up_neither_doctor_nor_the_end(self):
        hung = self.fault_mount('hung')
        self.directory('well')
        s = self.serve('--init')
        image = self.put(b'on the first')
        hung.rule('*', 'hang')
        wait_until('it is HUNG', lambda: self.health()['hung'] == 'HUNG', 30)

        # Whoever reads what it prints waits for no process it left behind.
        doctor = subprocess.Popen(
            [binary('predella'), '--endpoint',
             f'unix:{self.state}/run/coordinator.sock', 'doctor'],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        said, _ = doctor.communicate(timeout=ENDS_WITHIN)
        self.assertEqual(doctor.returncode, 6, said)
        found = re.search(r'FAIL  hung: .* does not answer; process (\d+)', said)
        self.assertTrue(found, said)
        with open(f'/proc/{found.group(1)}/stat', encoding='ascii') as f:
            self.assertEqual(f.read().rsplit(')', 1)[1].split()[0], 'D')

        for _ in range(2):
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(self.ends(s.process, 'serve'), 1, s.err)
            for reader in s.readers:
                reader.join(10)
            self.assertRegex(''.join(s.err),
                             r'error: left behind: agent hung \(pid \d+\)')
            # And it starts on a directory that hangs, of which it has
            # forgotten what it is; the coordinator has not.
            os.unlink(os.path.join(self.state, 'serve.json'))
            s = self.serve()
            wait_until('it is named', lambda run=s: run.absent)
            with open(os.path.join(self.state, 'serve.json'),
                      encoding='ascii') as f:
                self.assertEqual(set(json.load(f)['mount_uids']),
                                 {'hung', 'well'})
            self.assertRegex(s.absent[0], '^ABSENT hung ')
            self.put(b'stored meanwhile')
        hung.heal()
        wait_until('all are ONLINE',
                   lambda: set(self.health().values()) == {'ONLINE'}, 60)
        self.assertEqual(self.cli('image', 'get', image).out, b'on the first')
        self.assertEqual(s.stop(), 0)

    def test_directories_that_hang_do_not_add_up(self):
        mounts = [self.fault_mount(f'hung-{i}') for i in range(3)]
        self.directory('well')
        s = self.serve('--init')
        self.put(b'on the last')
        self.assertEqual(s.stop(), 0)
        for mount in mounts:
            mount.rule('*', 'hang')
        begun = time.monotonic()
        s = self.serve()
        took = time.monotonic() - begun
        print(f'READY after {took:.1f} s')
        # 5 s to look at all of them, 3 s for them to come all the same.
        self.assertLess(took, 15)
        wait_until('all are named', lambda: len(s.absent) == 3)
        self.put(b'stored meanwhile')
        for mount in mounts:
            mount.heal()
        wait_until('all are ONLINE',
                   lambda: set(self.health().values()) == {'ONLINE'}, 60)
        self.assertEqual(s.stop(), 0)

    def test_mount_init_of_a_directory_that_hangs_ends(self):
        new = self.fault_mount('new')
        new.rule('*', 'hang')
        process = subprocess.Popen(
            [binary('predella'), 'mount', 'init', new.path],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        # Whoever reads what it prints waits for no process it left behind.
        _, said = process.communicate(timeout=ENDS_WITHIN)
        self.assertEqual(process.returncode, 4, said)
        self.assertRegex(said, f'error: {new.path} does not answer: .*'
                         r'\(MOUNT_STALLED\)')
        new.heal()
        result = run([binary('predella'), 'mount', 'init', new.path])
        self.assertEqual(result.code, 0, result.err)
        self.assertIn('mount_uid', result.json)


if __name__ == '__main__':
    unittest.main(verbosity=2)
