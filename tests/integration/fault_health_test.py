"""A disk fails in each of the ways that disks do: how it is seen, how soon,
what goes on, and that it heals by itself (reliability.md G7, design part 8).

All faults at once, each on a mount of its own, beside mounts that are well.
Needs root and FUSE. PREDELLA_FAULT_SEED draws the data; PREDELLA_FAULT_FULL=1
also waits for the state that takes a minute to be seen (SLOW).
"""
import os
import random
import subprocess
import threading
import time
import unittest

from cluster import Cluster, random_bytes
from fault_mount import FaultMount, need_faultfs

FULL = os.environ.get('PREDELLA_FAULT_FULL') == '1'
SEED = int(os.environ.get('PREDELLA_FAULT_SEED') or
           random.SystemRandom().randrange(1 << 32))
SIZE = 1 << 20
# From what the mount did to what `mount ls` shows: a heartbeat, and this
# machine's load.
SHOWN = 2.0
LOAD = 1.0
SYNCS = 'fsync,fdatasync,fsyncdir'
CHANGES = 'write,create,rename,link,unlink,mkdir,truncate,fallocate,' + SYNCS
SERVED, REFUSED, EITHER = 'served', 'refused', 'either'


class Case:
    """One fault. `states`: which may be shown while it lasts; `within`: when
    it must be shown, in seconds since the fault came; `reads`: of an image
    that lies there; `ends`: the state it must have got to in the end."""

    def __init__(self, name, rules, states, within, reads, ends=None):
        self.name = name
        self.rules = rules
        self.states = ['HEALTH_' + s for s in states]
        self.within = within
        self.reads = reads
        self.ends = 'HEALTH_' + (ends or states[0])
        self.mount = None
        self.image = None
        self.data = None
        self.numbers = []
        self.since = None

    def hurt(self, test):
        self.numbers = [self.mount.rule(*rule) for rule in self.rules]
        self.since = time.monotonic()

    def injected(self):
        return sum(self.mount.counts(n)['injected'] for n in self.numbers)

    def heal(self, test):
        self.mount.heal()


class Unmounted(Case):
    """Lazily, as by an administrator, while the agent has it open."""

    def hurt(self, test):
        subprocess.run(['umount', '-l', self.mount.path], check=True)
        self.since = time.monotonic()

    def injected(self):
        return 1

    def heal(self, test):
        # What its agent still writes goes to the file system that was there.
        test.assertEqual(os.listdir(self.mount.path), [])
        self.mount = FaultMount(test, self.mount.backing,
                                path=self.mount.path)


class IdentityGone(Case):
    def label(self):
        return os.path.join(self.mount.backing, '.predella', 'mount.id')

    def hurt(self, test):
        os.rename(self.label(), self.label() + '.away')
        self.since = time.monotonic()

    def injected(self):
        return 1

    def heal(self, test):
        os.rename(self.label() + '.away', self.label())


class AgentSilent(Case):
    def hurt(self, test):
        test.cluster.agents[self.name].pause()
        self.since = time.monotonic()

    def injected(self):
        return 1

    def heal(self, test):
        test.cluster.agents[self.name].resume()


# A probe comes every 2 s.
NEXT_PROBE = 2.0


def all_cases():
    cases = [
        Case('eio-write', [('write', 'error:EIO')],
             ['SUSPECT'], NEXT_PROBE, SERVED),
        Case('eio-read', [('read', 'error:EIO')],
             ['SUSPECT', 'FAILED'], NEXT_PROBE, REFUSED, ends='FAILED'),
        Case('eio-sync', [(SYNCS, 'error:EIO')],
             ['SUSPECT'], NEXT_PROBE, SERVED),
        Case('erofs', [(CHANGES, 'error:EROFS')],
             ['READ_ONLY'], NEXT_PROBE, SERVED),
        Case('enospc', [('write,create,fallocate', 'error:ENOSPC')],
             ['ONLINE'], 0, SERVED),
        # Also of its root: what was mounted there is gone.
        Case('estale', [('*', 'error:ESTALE')],
             ['SUSPECT', 'ABSENT'], NEXT_PROBE, REFUSED, ends='ABSENT'),
        Case('hang', [('*', 'hang')], ['HUNG'], 10, REFUSED),
        # A write that still completes is a sign of life: it counts from there.
        Case('hang-sync', [(SYNCS, 'hang')], ['HUNG'], 20, EITHER),
        Unmounted('unmounted', [], ['ABSENT'], 1, REFUSED),
        IdentityGone('no-label', [], ['ABSENT'], 1, REFUSED),
        AgentSilent('silent', [], ['UNREACHABLE'], 15, REFUSED),
    ]
    if FULL:
        cases.append(Case('slow', [('write', 'delay:1300')],
                          ['SLOW'], 75, SERVED))
    return cases


class Watch(threading.Thread):
    """What `mount ls` says of each mount, since when."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.lock = threading.Lock()
        self.seen = {}  # name -> [(when, health)]
        self.longest = 0.0
        self.stopping = False

    def run(self):
        while not self.stopping:
            start = time.monotonic()
            result = self.cluster.cli('mount', 'ls', '-o', 'json', check=False)
            self.longest = max(self.longest, time.monotonic() - start)
            if result.code == 0:
                with self.lock:
                    for mount in result.json['mounts']:
                        name = mount['name'].split('/')[1]
                        line = self.seen.setdefault(name, [])
                        if not line or line[-1][1] != mount['health']:
                            line.append((time.monotonic(), mount['health']))
            time.sleep(0.1)

    def now(self, name):
        with self.lock:
            return self.seen.get(name, [(0, '')])[-1][1]

    def since(self, name, when):
        """Changes after `when`, and what held then."""
        with self.lock:
            line = self.seen.get(name, [])
            before = [h for t, h in line if t <= when][-1:]
            return before, [(t - when, h) for t, h in line if t > when]


class FaultHealthTest(unittest.TestCase):
    def setUp(self):
        need_faultfs(self)
        print(f'PREDELLA_FAULT_SEED={SEED}')
        self.rng = random.Random(SEED)
        self.cases = all_cases()
        for case in self.cases:
            case.mount = FaultMount(self)
        good = [FaultMount(self) for _ in range(2)]
        self.cluster = Cluster((), agent_args=())
        self.addCleanup(self.stop)
        for case in self.cases:
            self.cluster.add_mount(case.name, case.mount.path, 100,
                                   ('--reserve', '1MiB'))
        for i, mount in enumerate(good):
            self.cluster.add_mount(f'good-{i}', mount.path, 200,
                                   ('--reserve', '1MiB'))
        self.cluster.start()
        self.pids = {n: a.process.pid for n, a in self.cluster.agents.items()}
        self.stored = {}  # image -> data
        self.wrong = []  # what was not as it should be, all of it
        self.watch = Watch(self.cluster)
        self.watch.start()

    def stop(self):
        if not self._outcome.success:
            self.cluster.print_logs()
        if hasattr(self, 'watch'):
            self.watch.stopping = True
            self.watch.join()
        for case in self.cases:  # before their agents can end
            case.mount.remove()
        for agent in self.cluster.agents.values():
            if agent.process is not None:
                agent.resume()
        self.cluster.stop()

    def put(self, check=True, timeout=60):
        """(exit code, image, seconds, words)"""
        data = random_bytes(SIZE, self.rng.getrandbits(32))
        start = time.monotonic()
        try:
            result = self.cluster.cli('image', 'put', '-', '--size', str(SIZE),
                                      data=data, check=check,
                                      timeout=timeout)
        except subprocess.TimeoutExpired:
            return -1, None, timeout, 'no end'
        took = time.monotonic() - start
        if result.code != 0:
            return result.code, None, took, result.err
        image = result.text.split()[-1]
        self.stored[image] = data
        return 0, image, took, ''

    def get(self, image):
        """(exit code, seconds, words); bytes are compared."""
        start = time.monotonic()
        try:
            result = self.cluster.cli('image', 'get', image, check=False,
                                      timeout=60)
        except subprocess.TimeoutExpired:
            return -1, 60.0, 'no end'
        if result.code == 0 and result.out != self.stored[image]:
            self.fail(f'{image}: wrong bytes, seed {SEED}')
        self.assertNotEqual(result.code, 3, f'{image}: not found')
        return result.code, time.monotonic() - start, result.err

    def at_once(self, call, inputs):
        """call(input) of each, side by side; a list of results."""
        results = [None] * len(inputs)

        def run(i):
            results[i] = call(inputs[i])
        threads = [threading.Thread(target=run, args=(i,))
                   for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def place_one_on_each(self):
        for _ in range(6 * len(self.cases)):
            _, image, _, _ = self.put()
            where, = self.cluster.where(image)
            for case in self.cases:
                if case.name == where and case.image is None:
                    case.image = image
            if all(case.image for case in self.cases):
                return
        self.fail('not every mount got an image: ' + ', '.join(
            c.name for c in self.cases if c.image is None))

    def test_each_fault_is_seen_in_time_and_heals(self):
        self.place_one_on_each()
        for case in self.cases:
            case.hurt(self)
        # Uploads that come before it is seen make its calls fail. Those that
        # a hang catches are the business of fault_hang_test.
        early = threading.Thread(target=self.begin_early)
        early.start()
        self.check_states()
        early.join()
        self.check_traffic()
        self.check_injected()
        self.check_healing()
        self.assertEqual(self.wrong, [], f'seed {SEED}')

    def begin_early(self):
        puts = self.at_once(lambda _: self.put(check=False, timeout=20),
                            range(8))
        print('uploads before it was seen: exit codes '
              f'{sorted(p[0] for p in puts)} (-1: still there after 20 s)')

    def check_states(self):
        wrong = self.wrong
        last = max(c.within for c in self.cases) + SHOWN + LOAD
        time.sleep(max(0.0, self.cases[-1].since + last - time.monotonic()))
        for case in self.cases:
            _, changes = self.watch.since(case.name, case.since)
            times = [t for t, h in changes if h in case.states]
            others = [h for _, h in changes
                      if h not in case.states + ['HEALTH_ONLINE']]
            shown = ', '.join(f'{h[7:]} {t:.1f} s' for t, h in changes)
            print(f'{case.name}: {shown or "ONLINE"}')
            if case.states == ['HEALTH_ONLINE']:
                if changes:
                    wrong.append(f'{case.name}: {shown}, but it is well')
                continue
            limit = case.within + SHOWN + LOAD
            if not times or times[0] > limit:
                wrong.append(f'{case.name}: {case.states} within {limit:.0f} s,'
                             f' but {shown}')
            if others:
                wrong.append(f'{case.name}: never {others}')
            if self.watch.now(case.name) != case.ends:
                wrong.append(f'{case.name}: ends as '
                             f'{self.watch.now(case.name)}, not {case.ends}')
        for i in range(2):
            _, changes = self.watch.since(f'good-{i}', self.cases[0].since)
            if changes:
                wrong.append(f'good-{i}: {changes}')
        print(f'longest call of mount ls: {self.watch.longest:.2f} s')

    def check_traffic(self):
        wrong = self.wrong
        puts = self.at_once(lambda _: self.put(check=False), range(6))
        for code, image, took, words in puts:
            if code != 0 or took > 10:
                wrong.append(f'upload: exit {code} in {took:.1f} s: {words}')
            elif self.cluster.where(image)[0][:4] != 'good':
                # enospc is well, so it may be asked, and then is left.
                wrong.append(f'upload went to {self.cluster.where(image)}')
        gets = self.at_once(self.get, [c.image for c in self.cases])
        for case, (code, took, words) in zip(self.cases, gets):
            print(f'read of {case.name}: exit {code} in {took:.1f} s')
            good = (case.reads == EITHER or
                    (code == 0) == (case.reads == SERVED))
            if not good or took > 5:
                wrong.append(f'read of {case.name}: exit {code} in '
                             f'{took:.1f} s: {words}')

    def check_injected(self):
        counts = {c.name: c.injected() for c in self.cases}
        print(f'{sum(counts.values())} faults of {len(counts)} kinds: {counts}')
        self.assertTrue(all(counts.values()), counts)

    def check_healing(self):
        start = time.monotonic()
        for case in self.cases:
            case.heal(self)
        self.cluster.wait_ready(timeout=90)
        print(f'all healthy {time.monotonic() - start:.1f} s after the faults')
        for name, agent in self.cluster.agents.items():
            self.assertTrue(agent.running(), name)
            self.assertEqual(agent.process.pid, self.pids[name])
        for image in list(self.stored):
            code, _, words = self.get(image)
            self.assertEqual(code, 0, f'{image}: {words}')
        print(f'{len(self.stored)} images whole at the end')


if __name__ == '__main__':
    unittest.main(verbosity=2)
