"""A directory behind the fault file system (tests/faultfs), for one test.

Rules act at once and work on a mount that hangs. When the test ends the rules
go, then the mount, then its process, whatever hangs in it.
"""
import os
import shutil
import socket
import subprocess
import tempfile
import time

from cluster import binary
from namespace_mounts import need_namespace


def need_faultfs(test):
    """Skips where the fault file system can't be."""
    need_namespace(test)
    if not os.path.exists(binary('faultfs')):
        test.skipTest('faultfs was not built: libfuse3-dev is missing')
    if not os.path.exists('/dev/fuse'):
        test.skipTest('no /dev/fuse here')


class FaultMount:
    """`path` shows `backing`; rules are those of tests/faultfs/rules.h."""

    def __init__(self, test, backing=None, direct=False, path=None):
        # Short: the control socket's path has at most 107 bytes.
        self.top = tempfile.mkdtemp(prefix='ff-', dir='/tmp')
        self.path = path or os.path.join(self.top, 'm')
        self.backing = backing or os.path.join(self.top, 'b')
        self.control = os.path.join(self.top, 'c')
        os.makedirs(self.path, exist_ok=True)
        os.makedirs(self.backing, exist_ok=True)
        # It dies with the thread that starts it: the test's own.
        self.process = subprocess.Popen(
            [binary('faultfs'), self.backing, self.path, self.control,
             *(['--direct'] if direct else [])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        test.addCleanup(self.remove)
        if self.process.stdout.readline() != b'READY\n':
            raise AssertionError('faultfs did not start')

    def command(self, line):
        """What faultfs answers, without its last line."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(self.control)
            client.sendall(line.encode() + b'\n')
            answer = b''
            while True:
                last = answer.rstrip(b'\n').rsplit(b'\n', 1)[-1]
                if answer.endswith(b'\n') and last.startswith((b'ok',
                                                               b'error')):
                    break
                received = client.recv(65536)
                if not received:
                    raise AssertionError(f'faultfs broke off: {line}')
                answer += received
        lines = answer.decode().splitlines()
        if not lines[-1].startswith('ok'):
            raise AssertionError(f'faultfs: {line}: {lines[-1]}')
        return lines

    def rule(self, operations, action, path=None, skip=None, count=None):
        """Adds one; returns its number."""
        words = [f'op={operations}', f'do={action}']
        words += [f'{key}={value}' for key, value in
                  (('path', path), ('skip', skip), ('count', count))
                  if value is not None]
        return int(self.command('add ' + ' '.join(words))[-1].split()[1])

    def remove_rule(self, number):
        self.command(f'remove {number}')

    def heal(self):
        self.command('clear')

    def counts(self, number):
        """matched, injected and waiting of a rule that is there."""
        for line in self.command('status'):
            words = line.split()
            if words[:2] == ['rule', str(number)]:
                return {key: int(value) for key, value in
                        (word.split('=') for word in words[2:5])}
        raise AssertionError(f'no rule {number}')

    def calls(self):
        """How often each operation came, in all."""
        return {words[1]: int(words[2]) for words in
                map(str.split, self.command('status')) if words[0] == 'calls'}

    def remove(self):
        """Leaves nothing behind; may be called again."""
        if self.process is None:
            return
        if self.process.poll() is None:
            try:
                self.command('disarm')
            except (OSError, AssertionError):
                pass
        subprocess.run(['umount', '-l', self.path], check=False,
                       stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 2
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None
        shutil.rmtree(self.top, ignore_errors=True)
