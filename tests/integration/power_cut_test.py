"""The power of a mount's disk, of the index's disk, or of all of them is cut
under load, and everything starts again.

What was acknowledged must hold (see kill_storm_test): stored images are there
and whole, deleted ones stay gone, nothing half is visible, and the index has
not gone back in time. The same run with syncs left out must fail.

PREDELLA_CUT_SEED says which run, PREDELLA_CUT_SECONDS makes it as long as that
instead of a number of cuts, and runs every broken variant instead of one.
"""
import os
import random
import threading
import time
import unittest

from cluster import Cluster, ClusterTest, wait_until
from kill_storm_test import NOT_FOUND, Model, Worker
from power_disks import Disk, need_disks, skip_syncs

SECONDS = int(os.environ.get('PREDELLA_CUT_SECONDS', '0'))
SEED = int(os.environ.get('PREDELLA_CUT_SEED') or
           random.SystemRandom().randrange(1 << 32))
CUTS = 4  # of each test, where no time was asked for
ACKS_PER_CUT = 4
WORKERS = 4
# A variant without its syncs must be noticed within so many cuts.
NOTICED_WITHIN = 40


class Touched(Model):
    """Also knows what a round did something to."""

    def __init__(self):
        super().__init__()
        self.touched = set()
        self.acknowledged = 0

    def put(self, image, content, acknowledged):
        super().put(image, content, acknowledged)
        self.touched.add(image)
        self.acknowledged += acknowledged

    def removed(self, image, acknowledged):
        super().removed(image, acknowledged)
        self.touched.add(image)
        self.acknowledged += acknowledged


class CutWorker(Worker):
    large = 3 << 20
    most_images = 12


class PowerCut(ClusterTest):
    """Mounts on ext4 and XFS, the index on one of them; see the subclasses."""
    index_on = 'ext4'

    def setUp(self):
        need_disks(self, 'ext4', 'xfs')
        self.disks = {'store-1': Disk('ext4'), 'store-2': Disk('xfs'),
                      'coordinator': Disk(self.index_on)}
        for disk in self.disks.values():
            self.addCleanup(disk.close)
        mounts = [os.path.join(self.disks[n].path, 'mount')
                  for n in ('store-1', 'store-2')]
        self.cluster = Cluster((100, 100), mounts,
                               agent_args=('--reserve', '16MiB'))
        argv = self.cluster.coordinator.argv
        self.cluster.state = os.path.join(self.disks['coordinator'].path,
                                          'state')
        os.mkdir(self.cluster.state)
        argv[argv.index('--state-dir') + 1] = self.cluster.state
        self.daemons = {'coordinator': self.cluster.coordinator,
                        **self.cluster.agents}
        self.addCleanup(self._stop)
        self.cluster.start()
        # What mount init and the first start made is synced by them; the
        # directories of this test are not.
        for disk in self.disks.values():
            os.sync()
        self.until = 0
        self.rng = random.Random(SEED)
        self.models = [Touched() for _ in range(WORKERS)]
        self.counts = {}

    def load(self):
        """Workers that go on until self.until."""
        workers = []
        for number, model in enumerate(self.models):
            worker = CutWorker(self, number)
            worker.model = model
            worker.rng = random.Random(self.rng.getrandbits(64))
            worker.start()
            workers.append(worker)
        return workers

    def cut(self, names):
        """Cuts the power of these disks under load, and starts again."""
        self.until = time.monotonic() + 60
        workers = self.load()
        time.sleep(self.rng.uniform(0.3, 1.2))
        if self.rng.random() < 0.3:
            # Killed and started again before the cut: what it finds then may
            # be in the page cache alone.
            for name in names:
                self.daemons[name].kill()
                self.daemons[name].start()
            time.sleep(self.rng.uniform(0, 0.5))
        for worker in workers:
            worker.until = 0  # each ends what it is at
        if self.rng.random() < 0.3:
            for name in names:
                self.disks[name].die()
            time.sleep(self.rng.uniform(0, 0.3))  # they see the errors
            for name in names:
                self.daemons[name].kill()
        else:
            for name in names:
                self.disks[name].cut(self.daemons[name])
        for name in names:
            self.disks[name].remount()
            self.daemons[name].start()
        for worker in workers:
            worker.join()
            for key, count in worker.counts.items():
                self.counts[key] = self.counts.get(key, 0) + count
        return workers

    def recovered(self):
        return self.cluster.coordinator.log().count(' error recovering ')

    def check(self, workers, images_of):
        self.cluster.wait_ready(timeout=40)
        self.assertEqual(self.recovered(), 0,
                         'a mount knows what the index has lost')
        for worker in workers:
            self.assertEqual(worker.errors, [])
            for image in sorted(images_of(worker.model)):
                result = self.cluster.cli('image', 'get', image, check=False,
                                          timeout=120)
                self.assertIn(result.code, (0, NOT_FOUND),
                              f'{image}: {result.err}')
                worker.check(image, result)
            self.assertEqual(worker.errors, [])
            worker.model.touched.clear()
        wait_until('the cluster is OK', lambda: self.cluster.cli(
            'cluster', 'status', check=False).code == 0)

    def check_files(self, workers):
        """Every image of the models is whole or absent, and no file is left
        that the index does not know."""
        self.check(workers, lambda model: model.allowed)
        listed = {i['name'].split('/')[1] for i in
                  self.cluster.cli('image', 'ls', '-o', 'json').json.get(
                      'images', [])}

        def on_disk():
            return {f for name in self.cluster.paths
                    for f in self.cluster.files(name)}
        wait_until('the files are those of the index',
                   lambda: on_disk() == listed, 30)
        return len(listed)

    def storm(self, cuts, seconds=0, only=None):
        began = time.monotonic()
        done = 0
        workers = []
        everybody = list(self.disks)
        while done < cuts or time.monotonic() - began < seconds:
            # Each disk first, then whom it hits, or all at once.
            names = ([only[done % len(only)]] if only else
                     [everybody[done]] if done < len(everybody) else
                     everybody if self.rng.random() < 0.3 else
                     [self.rng.choice(everybody)])
            workers = self.cut(names)
            done += 1
            self.check(workers, lambda model: model.touched)
        return workers

    def acknowledged(self):
        return sum(model.acknowledged for model in self.models)

    def report(self):
        cuts = {name: disk.cuts for name, disk in self.disks.items()}
        print(f'PREDELLA_CUT_SEED={SEED} index on {self.index_on}: cuts '
              f'{cuts}, {self.acknowledged()} acknowledged; {self.counts}',
              flush=True)
        print(f'injected faults: {sum(cuts.values())}', flush=True)
        return sum(cuts.values())

    def holds(self):
        try:
            workers = self.storm(CUTS, SECONDS)
            count = self.check_files(workers)
        finally:
            cuts = self.report()
        print(f'{count} images whole at the end')
        self.assertGreaterEqual(cuts, max(CUTS, SECONDS // 10))
        self.assertGreaterEqual(self.acknowledged(), ACKS_PER_CUT * CUTS)
        for disk in self.disks.values():
            self.assertGreater(disk.cuts, 0)

    def notices(self, who, kind):
        """The storm fails when `who` leaves out these syncs."""
        who = list(who)
        env = skip_syncs(self, kind)
        for daemon in who:
            daemon.kill()
            daemon.env = env
            daemon.start()
        self.cluster.wait_ready()
        try:
            self.storm(NOTICED_WITHIN, only=[d.name for d in who])
        except AssertionError as error:
            cuts = self.report()
            print(f'without syncs of {kind}: noticed after {cuts} cuts: '
                  f'{str(error).splitlines()[0]}')
            return
        self.report()
        self.fail(f'{NOTICED_WITHIN} cuts did not show that syncs of {kind} '
                  'were left out')


class IndexOnExt4Test(PowerCut):
    def test_acknowledged_images_survive(self):
        self.holds()


class IndexOnXfsTest(PowerCut):
    index_on = 'xfs'

    def test_acknowledged_images_survive(self):
        self.holds()


class BrokenVariantTest(PowerCut):
    """The test tests itself."""

    def directories_of_agents(self):
        self.notices(self.cluster.agents.values(), 'directories')

    def files_of_agents(self):
        self.notices(self.cluster.agents.values(), 'files')

    def all_of_the_coordinator(self):
        self.notices([self.cluster.coordinator], 'all')


VARIANTS = ('directories_of_agents', 'files_of_agents',
            'all_of_the_coordinator')
for variant in VARIANTS if SECONDS else [VARIANTS[SEED % len(VARIANTS)]]:
    setattr(BrokenVariantTest, 'test_without_syncs_of_' + variant,
            getattr(BrokenVariantTest, variant))


if __name__ == '__main__':
    unittest.main(verbosity=2)
