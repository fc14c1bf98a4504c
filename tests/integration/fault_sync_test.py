"""Every call of a publish fails once, in every way, at its first, middle and
last time: what was acknowledged is there and whole after a kill -9 of its
agent, what failed is not half there, and a file whose sync failed is never
published (reliability.md G6).

Real processes over the fault file system. Needs root and FUSE.
PREDELLA_FAULT_SEED chooses what is run; PREDELLA_FAULT_FULL=1 runs all of it,
else PREDELLA_FAULT_RUNS of it (40). PREDELLA_FAULT_PAIRS (6) publishes have two
such faults.
"""
import os
import random
import subprocess
import threading
import time
import unittest
import uuid

from cluster import BIN, Cluster, random_bytes, wait_until
from fault_mount import FaultMount, need_faultfs

FULL = os.environ.get('PREDELLA_FAULT_FULL') == '1'
RUNS = int(os.environ.get('PREDELLA_FAULT_RUNS', '40'))
PAIRS = int(os.environ.get('PREDELLA_FAULT_PAIRS', '6'))
SEED = int(os.environ.get('PREDELLA_FAULT_SEED') or
           random.SystemRandom().randrange(1 << 32))
LANES = 2
SIZE = 1_300_000
NOT_FOUND = 3

INFLIGHT, RECORDS, ROOT = '.predella/inflight/*', '.predella/records/*', '.'
# What a publish does, and where.
POINTS = [
    ('create', INFLIGHT), ('fallocate', INFLIGHT), ('write', INFLIGHT),
    ('open', INFLIGHT), ('getattr', INFLIGHT), ('fdatasync', INFLIGHT),
    ('rename', INFLIGHT), ('unlink', INFLIGHT),
    ('create', RECORDS), ('write', RECORDS), ('fdatasync', RECORDS),
    ('getattr', RECORDS), ('rename', RECORDS), ('fsyncdir', RECORDS),
    ('fsyncdir', ROOT)]
ERRORS = ['EIO', 'ENOSPC', 'EROFS', 'EDQUOT', 'ESTALE', 'EMFILE', 'ENOMEM',
          'EINTR']
SYNCS = ('fdatasync', 'fsyncdir')


class Lane(threading.Thread):
    """A cluster of a faulty mount and a good one, and its runs."""

    def __init__(self, number, mount):
        super().__init__()
        self.mount = mount
        self.rng = random.Random(SEED * 100 + number)
        self.cluster = Cluster((100, 200),
                               [mount.path, os.path.join(mount.top, 'good')],
                               agent_args=('--reserve', '1MiB'))
        self.runs = []
        self.contents = {}
        self.wrong = []
        self.counts = dict.fromkeys(
            ('injected', 'not reached', 'both of a pair', 'stored there',
             'stored elsewhere', 'refused'), 0)

    def run(self):
        try:
            for run in self.runs:
                self.one(*run)
            self.check_files()
        except Exception as error:  # pylint: disable=broad-except
            self.wrong.append(f'{type(error).__name__}: {error}')

    def put(self):
        """(exit code, image, words)"""
        image = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        data = random_bytes(SIZE, self.rng.getrandbits(32))
        self.contents[image] = data
        result = self.cluster.cli('image', 'put', '-', '--id', image,
                                  '--size', str(SIZE), data=data, check=False,
                                  timeout=60)
        return result.code, image, result.err

    def measure(self):
        """How often a publish comes to each point."""
        numbers = {p: self.mount.rule(p[0], 'pass', path=p[1]) for p in POINTS}

        def counts():
            return {p: self.mount.counts(n)['matched']
                    for p, n in numbers.items()}
        # The mount is listed after its agent registers, at its leisure.
        before, last = counts(), None
        while before != last:
            time.sleep(0.5)
            before, last = counts(), before
        code, image, words = self.put()
        assert code == 0 and self.cluster.where(image) == ['store-1'], words
        # The last calls may come after the answer.
        time.sleep(0.3)
        out = {p: n - before[p] for p, n in counts().items()}
        self.mount.heal()
        return out

    def one(self, *faults):
        """A publish with these faults, each (operation, path, action, how
        often it is let through before)."""
        what = ' and '.join(f'{action} at {operation} {path} after {skip}'
                            for operation, path, action, skip in faults)
        rules = [self.mount.rule(operation, action, path=path, skip=skip,
                                 count=1)
                 for operation, path, action, skip in faults]
        try:
            code, image, words = self.put()
        except subprocess.TimeoutExpired:
            self.wrong.append(f'{what}: the upload has no end')
            self.mount.heal()
            return
        injected = [fault for fault, rule in zip(faults, rules)
                    if self.mount.counts(rule)['injected']]
        self.counts['injected'] += len(injected)
        self.counts['not reached'] += len(faults) - len(injected)
        self.counts['both of a pair'] += len(injected) == 2
        self.mount.heal()
        where = self.cluster.where(image) if code == 0 else []
        self.counts['refused' if code != 0 else
                    'stored there' if where == ['store-1']
                    else 'stored elsewhere'] += 1
        if where == ['store-1'] and any(
                operation in SYNCS and action.startswith('error') and
                action != 'error:EINTR'
                for operation, _, action, _ in injected):
            self.wrong.append(f'{what}: published after a failed sync')
        agent = self.cluster.agents['store-1']
        agent.kill()
        agent.start()
        self.cluster.wait_ready(['store-1'], timeout=60)
        got = self.cluster.cli('image', 'get', image, check=False)
        if got.code == 0 and got.out != self.contents[image]:
            self.wrong.append(f'{what}: wrong bytes')
        elif got.code not in ((0,) if code == 0 else (0, NOT_FOUND)):
            self.wrong.append(f'{what}: put {code} ({words}), then get '
                              f'{got.code}: {got.err}')

    def check_files(self):
        """Nothing lies there but what the index has."""
        def known(name):
            listed = self.cluster.cli('image', 'ls', '--mount', name, '-o',
                                      'json').json
            return sorted(i['name'].split('/')[1]
                          for i in listed.get('images', []))
        for name in self.cluster.paths:
            try:
                wait_until(f'the files of {name} are those of the index',
                           lambda n=name: known(n) == self.cluster.files(n) and
                           not self.cluster.inflight(n), 30)
            except AssertionError as error:
                self.wrong.append(
                    f'{error}: files {self.cluster.files(name)}, index '
                    f'{known(name)}, inflight {self.cluster.inflight(name)}')


def places(n):
    return sorted({0, n // 2, n - 1}) if n else []


class FaultSyncTest(unittest.TestCase):
    def setUp(self):
        need_faultfs(self)
        print(f'PREDELLA_FAULT_SEED={SEED}')
        # Its process dies with the thread that starts it: this one.
        self.lanes = [Lane(i, FaultMount(self)) for i in range(LANES)]
        self.addCleanup(self.stop)
        for lane in self.lanes:
            lane.cluster.start()

    def stop(self):
        for lane in self.lanes:
            if not self._outcome.success:
                lane.cluster.print_logs()
            lane.cluster.stop()

    def matrix(self):
        """Every fault of a publish, in the order of the seed."""
        counts = self.lanes[0].measure()
        print('calls of one publish: ' + ', '.join(
            f'{o} {p} {n}' for (o, p), n in counts.items()))
        faults = [(o, p, action, skip)
                  for (o, p), n in counts.items() for skip in places(n)
                  for action in [f'error:{e}' for e in ERRORS] +
                  (['short'] if o == 'write' else [])]
        random.Random(SEED).shuffle(faults)
        return faults

    def run_all(self, runs):
        """Sum of the lanes' counts; nothing was wrong."""
        for i, lane in enumerate(self.lanes):
            lane.runs = runs[i::LANES]
            lane.start()
        for lane in self.lanes:
            lane.join()
        total = {key: sum(lane.counts[key] for lane in self.lanes)
                 for key in self.lanes[0].counts}
        print(f'{len(runs)} runs: {total}')
        print(f'injected faults: {total["injected"]}')
        wrong = [w for lane in self.lanes for w in lane.wrong]
        self.assertEqual(wrong, [], f'seed {SEED}')
        return total

    def test_every_call_of_a_publish_fails(self):
        matrix = self.matrix()
        # Each kind of error and each point first.
        if not FULL:
            chosen, seen = [], set()
            for run in matrix:
                if not {run[:2], run[2]} <= seen:
                    seen |= {run[:2], run[2]}
                    chosen.append(run)
            rest = [run for run in matrix if run not in chosen]
            matrix_size, matrix = len(matrix), (chosen + rest)[:RUNS]
            print(f'{len(matrix)} of {matrix_size} runs')
        total = self.run_all([(fault,) for fault in matrix])
        self.assertGreaterEqual(total['injected'], len(matrix) * 9 // 10)
        for key in ('stored there', 'stored elsewhere'):
            self.assertGreater(total[key], 0, total)

    def test_two_calls_of_a_publish_fail(self):
        """The second often meets what cleans up after the first."""
        matrix = self.matrix()
        rng = random.Random(SEED + 1)
        pairs = []
        while len(pairs) < PAIRS:
            first, second = rng.sample(matrix, 2)
            # One call fails in one way.
            if (first[:2], first[3]) != (second[:2], second[3]):
                pairs.append((first, second))
        total = self.run_all(pairs)
        self.assertGreaterEqual(total['injected'], len(pairs))
        # A publish that fails early does not come to most of the rest.
        if PAIRS >= 100:
            self.assertGreaterEqual(total['both of a pair'], PAIRS // 20)

    def test_a_retried_sync_is_noticed(self):
        """The test itself: an agent that syncs again must fail it."""
        library = os.path.join(os.path.abspath(BIN), '..', 'lib',
                               'retried_sync.so')
        lane = self.lanes[0]
        agent = lane.cluster.agents['store-1']
        agent.kill()
        agent.env = {'LD_PRELOAD': library}
        agent.start()
        lane.cluster.wait_ready()
        for path, operation in ((INFLIGHT, 'fdatasync'),
                                (RECORDS, 'fsyncdir'), (ROOT, 'fsyncdir')):
            lane.one((operation, path, 'error:EIO', 0))
        self.assertEqual(lane.counts['injected'], 3)
        self.assertEqual([w.rsplit(': ', 1)[-1] for w in lane.wrong],
                         ['published after a failed sync'] * 3)

    def test_a_lying_sync_can_not_be_noticed(self):
        """And no such test can: nothing is lost until the power is. What it
        costs then is for the tests with power cuts, and for copies."""
        lane = self.lanes[0]
        for path, operation in ((INFLIGHT, 'fdatasync'), (ROOT, 'fsyncdir')):
            lane.one((operation, path, 'lie', 0))
        self.assertEqual(lane.counts['injected'], 2)
        self.assertEqual(lane.counts['stored there'], 2)
        self.assertEqual(lane.wrong, [])


if __name__ == '__main__':
    unittest.main(verbosity=2)
