"""Coordinator and agents over TCP in a network of their own, whose packets are
dropped one way or both, answered with a reset, or lost at random, under load:
nothing that is not true is said, and all goes on when the network is well.

PREDELLA_NETWORK_SEED says which run, PREDELLA_NETWORK_SECONDS how long (20).
Needs root and nft.
"""
import ctypes
import os
import random
import shutil
import subprocess
import time
import unittest

import kill_storm_test
from cluster import Cluster, ClusterTest
from kill_storm_test import Worker
from namespace_mounts import need_namespace

SECONDS = int(os.environ.get('PREDELLA_NETWORK_SECONDS', '20'))
SEED = int(os.environ.get('PREDELLA_NETWORK_SEED') or
           random.SystemRandom().randrange(1 << 32))
CLONE_NEWNET = 0x40000000
FIRST_PORT = 7400
KINDS = {
    'to it': ('tcp dport {port} drop',),
    'from it': ('tcp sport {port} drop',),
    'both ways': ('tcp dport {port} drop', 'tcp sport {port} drop'),
    'reset': ('tcp dport {port} reject with tcp reset',),
    'loss of 30 %': ('numgen random mod 100 < 30 drop',),
}
# After the network is well again; on a busy machine.
WELL_WITHIN = 20
# What happens at least once beside the faults.
WANTED = ('put', 'got', 'removed')


def nft(script):
    subprocess.run(['nft', '-f', '-'], input=script.encode(), check=True,
                   capture_output=True)


class NetworkTest(ClusterTest):
    priorities = (100, 100)

    def setUp(self):
        need_namespace(self)
        for tool in ('nft', 'ip'):
            if shutil.which(tool) is None:
                self.skipTest(f'needs {tool} (scripts/setup --test)')
        # This process is in it from here on, and all that it starts.
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            self.skipTest('needs a network namespace')
        subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
        try:
            nft('add table inet t\n'
                'add chain inet t c { type filter hook input priority 0; }\n')
        except subprocess.CalledProcessError as error:
            self.skipTest(f'needs nftables: {error.stderr.decode()}')
        self.cluster = Cluster(self.priorities)
        self.addCleanup(self._stop)
        self.ports = {}
        daemons = [self.cluster.coordinator, *self.cluster.agents.values()]
        self.cluster.endpoint = f'127.0.0.1:{FIRST_PORT}'
        for i, daemon in enumerate(daemons):
            port = FIRST_PORT + i
            self.ports[daemon.name] = port
            argv = daemon.argv
            argv[argv.index('--listen') + 1] = f'127.0.0.1:{port}'
            if '--coordinator' in argv:
                argv[argv.index('--coordinator') + 1] = self.cluster.endpoint
        self.cluster.start()

    def test_faults_under_load(self):
        print(f'PREDELLA_NETWORK_SEED={SEED}')
        rng = random.Random(SEED)
        kill_storm_test.SEED = SEED
        self.until = time.monotonic() + 1e9
        workers = [Worker(self, i) for i in range(3)]
        for worker in workers:
            worker.start()
        end = time.monotonic() + SECONDS
        faults = dict.fromkeys(KINDS, 0)
        slowest = 0

        def done(key):
            return sum(w.counts[key] for w in workers)
        try:
            # On a busy machine what is promised may take longer.
            while (time.monotonic() < end or not all(faults.values()) or
                   (time.monotonic() < end + 100 and
                    not all(done(key) for key in WANTED))):
                left = [k for k in KINDS if not faults[k]]
                kind = rng.choice(left or list(KINDS))
                port = self.ports[rng.choice(sorted(self.ports))]
                nft(''.join(f'add rule inet t c {rule.format(port=port)}\n'
                            for rule in KINDS[kind]))
                time.sleep(rng.choice((0.3, 1, 3)))
                nft('flush chain inet t c')
                began = time.monotonic()
                self.cluster.wait_ready(timeout=WELL_WITHIN)
                slowest = max(slowest, time.monotonic() - began)
                faults[kind] += 1
        finally:
            nft('flush chain inet t c')
            for worker in workers:
                worker.until = 0
            for worker in workers:
                worker.join()
        counts = {key: done(key) for key in workers[0].counts}
        print(f'faults {faults}, all well again after {slowest:.1f} s at most; '
              f'{counts}\ninjected faults: {sum(faults.values())}')
        for worker in workers:
            self.assertEqual(worker.errors, [], f'seed {SEED}')
        kill_storm_test.KillStormTest.check_all(self, workers)
        for key in WANTED:
            self.assertGreater(counts[key], 0, counts)


if __name__ == '__main__':
    unittest.main(verbosity=2)
