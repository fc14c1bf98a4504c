"""Real daemons on real NFS mounts; see guest.sh.

PREDELLA_NFS_KIND is how they are mounted: hard (the default) or soft.
PREDELLA_NFS_SEED draws the data.
"""
import os
import random
import subprocess
import time
import unittest

from cluster import Cluster, digest, random_bytes, wait_until
from nfs_server import KINDS, Mount, Server, need_guest

KIND = os.environ.get('PREDELLA_NFS_KIND', 'hard')
SEED = int(os.environ.get('PREDELLA_NFS_SEED') or
           random.SystemRandom().randrange(1 << 32))
assert KIND in KINDS, KIND
# Beyond what is promised: the next heartbeat, and a guest on one busy CPU in
# which each command takes a second.
LOAD = 2.0 + 6.0


class NfsTest(unittest.TestCase):
    server = None  # of all tests: the guest ends with them

    @classmethod
    def setUpClass(cls):
        need_guest()
        if NfsTest.server is None:
            NfsTest.server = Server()

    def setUp(self):
        print(f'PREDELLA_NFS_KIND={KIND} PREDELLA_NFS_SEED={SEED}')
        self.rng = random.Random(SEED)
        self.mounts = []
        self.stored = {}  # image -> digest
        self.injected = 0
        self.cluster = None
        self.addCleanup(self.stop)

    def stop(self):
        self.server.well()
        if self.cluster is not None:
            # Not outcome.success: that is of this cleanup alone.
            result = self._outcome.result
            if any(test is self for test, _ in
                   result.failures + result.errors):
                self.cluster.print_logs()
            self.cluster.stop()
        for mount in self.mounts:
            mount.remove()
        for export in self.server.exports:
            export.remove()
        self.server.exports.clear()

    def mount(self, mib=64, whole=False):
        """An export and its mount in this host."""
        export = self.server.export(mib, whole)
        mount = Mount(export, f'/mnt/{os.path.basename(export.disk)}', KIND)
        self.mounts.append(mount)
        return mount

    def start(self, *mounts, local=0, agent_args=()):
        """store-1 and so on are these mounts; after them directories of this
        host, which take only what those do not."""
        paths = [m.path for m in mounts]
        for i in range(local):
            paths.append(f'/mnt/local-{i}')
            subprocess.run(['mkdir', '-p', paths[-1]], check=True)
            self.addCleanup(subprocess.run, ['rm', '-rf', paths[-1]],
                            check=False)
        self.cluster = Cluster(
            [100] * len(mounts) + [200] * local, paths,
            agent_args=('--reserve', '1MiB', '--slow-above', '3s',
                        '--drain-timeout', '1s', *agent_args))
        self.cluster.start()
        self.pids = {n: a.process.pid for n, a in self.cluster.agents.items()}

    def put(self, size=200_000, check=True):
        """(exit code, image, seconds, words)"""
        data = random_bytes(size, self.rng.getrandbits(32))
        start = time.monotonic()
        result = self.cluster.cli('image', 'put', '-', data=data, check=check,
                                  timeout=150)
        image = None
        if result.code == 0:
            image = result.text.split()[-1]
            self.stored[image] = digest(data)
        return result.code, image, time.monotonic() - start, result.err

    def put_on(self, name, size=200_000):
        _, image, took, _ = self.put(size)
        self.assertEqual(self.cluster.where(image), [name])
        return image, took

    def health(self, name='store-1'):
        return self.cluster.cli('mount', 'stat', name, '-o', 'json'
                                ).json['health'].replace('HEALTH_', '')

    def wait_health(self, states, within, name='store-1'):
        """Returns the first of them that is shown, and after how long."""
        start = time.monotonic()
        seen = wait_until(f'{name} is {" or ".join(states)}',
                          lambda: self.health(name) in states and
                          self.health(name), max(60, within + 30))
        took = time.monotonic() - start
        self.assertLessEqual(took, within, f'{seen} came too late')
        return seen, took

    def wait_heal(self, within=60):
        """Without a restart of anything."""
        start = time.monotonic()
        self.cluster.wait_ready(timeout=within)
        for name, agent in self.cluster.agents.items():
            self.assertTrue(agent.running(), name)
            self.assertEqual(agent.process.pid, self.pids[name])
        return time.monotonic() - start

    def check_stored(self):
        for image, want in self.stored.items():
            result = self.cluster.cli('image', 'get', image, check=False)
            self.assertEqual(result.code, 0, f'{image}: {result.err}')
            self.assertEqual(digest(result.out), want, f'{image}, seed {SEED}')
        print(f'{len(self.stored)} acknowledged images whole')

    def remount(self, mounts):
        """Agents end, what is mounted is mounted anew, agents begin: nothing
        of it is in a cache of the client."""
        for agent in self.cluster.agents.values():
            agent.kill()
        for mount in mounts:
            mount.unmount()
            mount.mount()
        for agent in self.cluster.agents.values():
            agent.start()
        self.cluster.wait_ready(timeout=60)

    def promised(self, what, least):
        print(f'injected faults: {self.injected} ({what})')
        self.assertGreaterEqual(self.injected, least)
