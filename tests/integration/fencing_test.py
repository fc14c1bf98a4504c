"""Two cannot act: a coordinator on a copy of the state directory takes over
while the first is stopped, which then goes on; and daemons that are stopped
for longer than their sessions last, under load.

PREDELLA_FENCING_SEED says which run, PREDELLA_FENCING_SECONDS makes it longer
than its 20 s.
"""
import os
import random
import shutil
import subprocess
import time
import unittest

import kill_storm_test
from cluster import ClusterTest, Daemon, binary, run, wait_until
from kill_storm_test import Worker

SECONDS = int(os.environ.get('PREDELLA_FENCING_SECONDS', '20'))
SEED = int(os.environ.get('PREDELLA_FENCING_SEED') or
           random.SystemRandom().randrange(1 << 32))
TAKEOVERS = 2
# An agent publishes only in a session that was answered in the last 10 s.
LEASE = 10
NOT_FOUND = 3


class TakeoverTest(ClusterTest):
    priorities = (100, 200)

    def point_agents_at(self, endpoint):
        for agent in self.cluster.agents.values():
            agent.kill()
            agent.argv[agent.argv.index('--coordinator') + 1] = endpoint
            agent.start()

    def take_over(self, number):
        """A second coordinator, on a copy of what the stopped one has."""
        cluster = self.cluster
        state = os.path.join(cluster.top, f'state-{number}')
        shutil.copytree(cluster.state, state)
        endpoint = f'unix:{cluster.sockets}/c{number}'
        daemon = Daemon(f'coordinator-{number}', [
            binary('predella-coordinator'), '--state-dir', state, '--listen',
            endpoint], cluster.top)
        cluster.state, cluster.endpoint = state, endpoint
        cluster.coordinator = daemon
        daemon.start()
        self.point_agents_at(endpoint)
        cluster.wait_ready()

    def attempt(self, endpoint, *args, data=None):
        """Nothing may come of it; a client that goes on trying is ended."""
        try:
            result = run([binary('predella'), *args], data, 3,
                         {'PREDELLA_ENDPOINT': endpoint})
        except subprocess.TimeoutExpired:
            return
        self.assertNotEqual(result.code, 0,
                            f'the stale one did {args}: {result.text}')

    def test_a_copy_takes_over(self):
        cluster = self.cluster
        attempts = 0
        for number in range(TAKEOVERS):
            kept = cluster.put(b'kept')
            gone = cluster.put(b'gone')
            old, stale = cluster.coordinator, cluster.endpoint
            old.pause()
            self.addCleanup(old.kill)
            self.take_over(number)
            since = cluster.put(b'since')
            cluster.cli('image', 'rm', gone)
            old.resume()
            files = {n: cluster.files(n) for n in cluster.paths}
            self.attempt(stale, 'image', 'put', '-', data=b'stale')
            self.attempt(stale, 'image', 'rm', kept)
            # Agents that come to it all the same have heard of a later start.
            self.point_agents_at(stale)
            wait_until('they refuse it', lambda e=stale: 'STALE_EPOCH' in run(
                [binary('predella'), 'cluster', 'status'], None, 20,
                {'PREDELLA_ENDPOINT': e}).text)
            self.attempt(stale, 'image', 'put', '-', data=b'stale')
            self.attempt(stale, 'image', 'rm', kept)
            attempts += 4
            self.assertEqual({n: cluster.files(n) for n in cluster.paths},
                             files)
            self.point_agents_at(cluster.endpoint)
            cluster.wait_ready()
            self.assertEqual(cluster.get(kept), b'kept')
            self.assertEqual(cluster.get(since), b'since')
            self.assertEqual(cluster.cli('image', 'stat', gone,
                                         check=False).code, NOT_FOUND)
            old.kill()
        print(f'injected faults: {attempts}')

    def test_a_second_agent_beside_a_stopped_one(self):
        agent = self.cluster.agents['store-1']
        agent.pause()
        second = run(agent.argv, timeout=30)
        self.assertNotEqual(second.code, 0)
        agent.resume()
        self.cluster.wait_ready()
        print('injected faults: 1')


class PauseStormTest(ClusterTest):
    priorities = (100, 100, 200)

    def setUp(self):
        super().setUp()
        # Before the cluster's end: nobody waits for who is stopped.
        self.addCleanup(self.resume_all)

    def resume_all(self):
        for daemon in (self.cluster.coordinator,
                       *self.cluster.agents.values()):
            if daemon.running():
                daemon.resume()

    def test_stopped_under_load(self):
        print(f'PREDELLA_FENCING_SEED={SEED}')
        self.until = time.monotonic() + SECONDS
        kill_storm_test.SEED = SEED
        workers = [Worker(self, i) for i in range(3)]
        for worker in workers:
            worker.start()
        rng = random.Random(SEED)
        daemons = [self.cluster.coordinator, *self.cluster.agents.values()]
        pauses = 0
        try:
            # Once each kind for longer than a lease, then for what is drawn.
            for victim in (daemons[0], daemons[1]):
                self.pause(victim, LEASE + 2)
                pauses += 1
            while time.monotonic() < self.until:
                self.pause(rng.choice(daemons),
                           rng.choice((0.2, 1, 3, LEASE + 2)))
                time.sleep(rng.uniform(0, 0.5))
                pauses += 1
        finally:
            for worker in workers:
                worker.until = 0
            for worker in workers:
                worker.join()
        counts = {key: sum(w.counts[key] for w in workers)
                  for key in workers[0].counts}
        print(f'pauses {pauses}; {counts}\ninjected faults: {pauses}')
        for worker in workers:
            self.assertEqual(worker.errors, [], f'seed {SEED}')
        self.cluster.wait_ready(timeout=60)
        kill_storm_test.KillStormTest.check_all(self, workers)
        self.assertGreaterEqual(pauses, 2)

    def pause(self, daemon, seconds):
        daemon.pause()
        time.sleep(seconds)
        daemon.resume()


if __name__ == '__main__':
    unittest.main(verbosity=2)
