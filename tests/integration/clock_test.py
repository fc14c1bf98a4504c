"""The wall clocks of coordinator and agents jump under load, each on its own,
by seconds and by years: nothing that was acknowledged is lost, nothing is said
that is not true, and all goes on (libfaketime; the monotonic clock stays).

PREDELLA_CLOCK_SEED says which run, PREDELLA_CLOCK_SECONDS how long (12).
"""
import glob
import os
import random
import re
import tempfile
import time
import unittest

import kill_storm_test
from cluster import Cluster, ClusterTest
from kill_storm_test import Worker

SECONDS = int(os.environ.get('PREDELLA_CLOCK_SECONDS', '12'))
SEED = int(os.environ.get('PREDELLA_CLOCK_SEED') or
           random.SystemRandom().randrange(1 << 32))
LIBRARIES = glob.glob('/usr/lib/*/faketime/libfaketimeMT.so.1')
YEAR = 365 * 24 * 3600
JUMPS = (-10 * YEAR, -24 * 3600, -3600, -5, 5, 700, 3600, 25 * 3600, 40 * 3600,
         10 * YEAR)


class ClockTest(ClusterTest):
    def setUp(self):
        if not LIBRARIES:
            self.skipTest('needs libfaketime (scripts/setup --test)')
        self.cluster = Cluster((100, 100))
        self.addCleanup(self._stop)
        self.clocks = {}
        for daemon in (self.cluster.coordinator,
                       *self.cluster.agents.values()):
            clock = os.path.join(self.cluster.top, daemon.name + '.clock')
            self.clocks[daemon.name] = clock
            self.set_clock(clock, 0)
            daemon.env = {'LD_PRELOAD': LIBRARIES[0],
                          'FAKETIME_NO_CACHE': '1',
                          'FAKETIME_DONT_FAKE_MONOTONIC': '1',
                          'FAKETIME_TIMESTAMP_FILE': clock}
        self.cluster.start()

    def set_clock(self, path, offset):
        # Replaced in one step: it is read at any moment.
        with tempfile.NamedTemporaryFile('w', dir=self.cluster.top,
                                         delete=False) as f:
            f.write(f'{offset:+d}\n')
        os.rename(f.name, path)

    def test_jumps_under_load(self):
        print(f'PREDELLA_CLOCK_SEED={SEED}')
        rng = random.Random(SEED)
        kill_storm_test.SEED = SEED
        self.until = time.monotonic() + SECONDS
        workers = [Worker(self, i) for i in range(3)]
        for worker in workers:
            worker.start()
        jumps = 0
        while time.monotonic() < self.until:
            # By years first: their logs show that the clocks did jump.
            name, by = (('coordinator', JUMPS[0]), ('store-1', JUMPS[-1]))[
                jumps] if jumps < 2 else (rng.choice(sorted(self.clocks)),
                                          rng.choice(JUMPS))
            self.set_clock(self.clocks[name], by)
            jumps += 1
            time.sleep(rng.uniform(0.3, 1))
        for worker in workers:
            worker.join()
        counts = {key: sum(w.counts[key] for w in workers)
                  for key in workers[0].counts}
        print(f'jumps {jumps}; {counts}\ninjected faults: {jumps}')
        for worker in workers:
            self.assertEqual(worker.errors, [], f'seed {SEED}')
        for clock in self.clocks.values():
            self.set_clock(clock, 0)
        self.cluster.wait_ready(timeout=60)
        kill_storm_test.KillStormTest.check_all(self, workers)
        logs = (self.cluster.coordinator.log() +
                self.cluster.agents['store-1'].log())
        self.assertGreater(len(set(re.findall(r'^(20\d\d)-', logs, re.M))), 1,
                           'no clock jumped')
        self.assertGreaterEqual(jumps, SECONDS // 2)
        for key in ('put', 'got', 'removed'):
            self.assertGreater(counts[key], 0, counts)


if __name__ == '__main__':
    unittest.main(verbosity=2)
