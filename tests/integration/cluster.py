"""Real daemons for integration tests: a coordinator and an agent per mount,
over Unix sockets in a private directory. Used with unittest.

PREDELLA_BIN names the directory of the binaries (ctest sets it).
"""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BIN = os.environ.get('PREDELLA_BIN', 'build/dev/bin')
MIB = 1 << 20


def binary(name):
    return os.path.join(os.path.abspath(BIN), name)


def wait_until(what, condition, timeout=20.0):
    """Polls until condition() is true; fails with a sentence."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f'waited {timeout:.0f} s in vain: {what}')
        time.sleep(0.05)


def random_bytes(size, seed):
    """Repeatable bytes; the seed is in the message of a failed comparison."""
    return random.Random(seed).randbytes(size)


class Daemon:
    """One process and its log file."""

    def __init__(self, name, argv, log_dir, env=None):
        self.name = name
        self.argv = argv
        self.log_path = os.path.join(log_dir, name + '.log')
        self.env = env
        self.process = None

    def start(self):
        log = open(self.log_path, 'ab')
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **(self.env or {})})
        log.close()
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self, number=signal.SIGKILL):
        """Sends a signal and waits for the end; returns the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self.process = None
        return code

    def pause(self):
        """No thread of it runs any more; one may still be inside the kernel."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = f'/proc/{self.process.pid}/task'

        def state(task):
            try:
                with open(f'{tasks}/{task}/stat', encoding='ascii') as f:
                    return f.read().rsplit(')', 1)[1].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return 'gone'
        wait_until(f'{self.name} is stopped', lambda: not self.running() or
                   all(state(t) not in 'RS' for t in os.listdir(tasks)))

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def log(self):
        with open(self.log_path, encoding='utf-8', errors='replace') as f:
            return f.read()


class Result:
    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err

    @property
    def text(self):
        return self.out.decode()

    @property
    def json(self):
        return json.loads(self.out)


def run(argv, data=None, timeout=60, env=None):
    p = subprocess.run(argv, input=data, capture_output=True, timeout=timeout,
                       env={**os.environ, **(env or {})}, check=False)
    return Result(p.returncode, p.stdout, p.stderr.decode(errors='replace'))


class Cluster:
    def __init__(self, priorities=(100, 200, 300), directories=None,
                 coordinator_args=(), agent_args=()):
        # Short: the path of a Unix socket has at most 107 bytes.
        self.top = tempfile.mkdtemp(prefix='pr-', dir='/tmp')
        self.state = os.path.join(self.top, 'state')
        self.sockets = os.path.join(self.top, 's')
        os.mkdir(self.state)
        os.mkdir(self.sockets)
        self.endpoint = f'unix:{self.sockets}/c'
        self.coordinator = Daemon(
            'coordinator',
            [binary('predella-coordinator'), '--state-dir', self.state,
             '--listen', self.endpoint, *coordinator_args], self.top)
        self.paths = {}
        self.agents = {}
        for i, priority in enumerate(priorities):
            name = f'store-{i + 1}'
            path = (directories[i] if directories
                    else os.path.join(self.top, name))
            os.makedirs(path, exist_ok=True)
            self.add_mount(name, path, priority, agent_args)

    def add_mount(self, name, path, priority, agent_args=()):
        self.paths[name] = path
        self.agents[name] = Daemon(
            name,
            [binary('predella-agent'), '--name', name, '--path', path,
             '--priority', str(priority), '--coordinator', self.endpoint,
             '--listen', f'unix:{self.sockets}/{name}', *agent_args],
            self.top)

    def init_mounts(self):
        for name, path in self.paths.items():
            result = run([binary('predella'), 'mount', 'init', path,
                          '--name', name])
            assert result.code == 0, result.err

    def start(self):
        self.init_mounts()
        self.coordinator.start()
        for agent in self.agents.values():
            agent.start()
        self.wait_ready()
        return self

    def wait_ready(self, names=None, timeout=20):
        wanted = set(names or self.agents)

        def ready():
            result = self.cli('mount', 'ls', '-o', 'json', check=False)
            if result.code != 0:
                return False
            online = {m['name'].split('/')[1]
                      for m in result.json.get('mounts', [])
                      if m['health'] == 'HEALTH_ONLINE' and m.get('trusted')}
            return wanted <= online
        try:
            wait_until(f'{sorted(wanted)} are ONLINE', ready, timeout)
        except AssertionError:
            self.print_logs()
            raise

    def stop(self, keep=False):
        for agent in self.agents.values():
            agent.kill()
        self.coordinator.kill()
        if not keep:
            shutil.rmtree(self.top, ignore_errors=True)

    def print_logs(self):
        for daemon in (self.coordinator, *self.agents.values()):
            if os.path.exists(daemon.log_path):
                lines = daemon.log().splitlines()[-25:]
                print(f'--- {daemon.name}', *lines, sep='\n', file=sys.stderr)

    def cli(self, *args, data=None, check=True, timeout=90):
        result = run([binary('predella'), *args], data, timeout,
                     {'PREDELLA_ENDPOINT': self.endpoint})
        if check and result.code != 0:
            self.print_logs()
            raise AssertionError(
                f'predella {" ".join(args)}: exit {result.code}: {result.err}')
        return result

    def spawn_cli(self, *args):
        """A CLI process whose standard input the test feeds."""
        return subprocess.Popen(
            [binary('predella'), *args], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, 'PREDELLA_ENDPOINT': self.endpoint})

    def put(self, data, *args):
        return self.cli('image', 'put', '-', *args, data=data
                        ).text.strip().splitlines()[-1]

    def get(self, image, *args):
        return self.cli('image', 'get', image, *args).out

    def where(self, image):
        """Names of the mounts that the index says hold the image."""
        stat = self.cli('image', 'stat', image, '-o', 'json').json
        return [c['mount'].split('/')[1] for c in stat['copies']]

    def loss(self, command, name):
        """What --accept-lost takes, as the dry run of retire or replace says."""
        dry = self.cli('mount', command, name, '--dry-run', check=False)
        found = re.search(r'--accept-lost (\d+:[0-9a-f]{32}) ', dry.err)
        if not found:
            raise AssertionError(f'no --accept-lost in: {dry.err}')
        return found[1]

    def files(self, name):
        """Final names on a mount."""
        return sorted(n for n in os.listdir(self.paths[name])
                      if n != '.predella' and n != 'lost+found')

    def inflight(self, name):
        return sorted(os.listdir(
            os.path.join(self.paths[name], '.predella', 'inflight')))


def digest(data):
    return hashlib.sha256(data).hexdigest()


class ClusterTest(unittest.TestCase):
    """Starts a cluster for each test; prints its logs when one fails."""
    priorities = (100, 200, 300)
    coordinator_args = ()
    agent_args = ()

    def setUp(self):
        self.cluster = Cluster(self.priorities,
                               coordinator_args=self.coordinator_args,
                               agent_args=self.agent_args)
        self.addCleanup(self._stop)
        self.cluster.start()

    def _stop(self):
        # Not outcome.success: that is of this cleanup alone.
        result = self._outcome.result if self._outcome is not None else None
        if result is not None and any(
                test is self for test, _ in result.failures + result.errors):
            self.cluster.print_logs()
        self.cluster.stop()

    def assert_same(self, got, want, what):
        # Not assertEqual: it would print megabytes.
        if got != want:
            self.fail(f'{what}: {len(got)} bytes with sha256 {digest(got)}, '
                      f'wanted {len(want)} with {digest(want)}')
