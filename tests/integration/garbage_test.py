"""The circuit breaker for bytes in flight: an index that forgot its open
uploads, and the operator's way from there to the end."""
import os
import shutil
import unittest
import uuid

from cluster import MIB, ClusterTest, random_bytes, wait_until

UPLOADS = 12  # above the ten that are held on a mount without images
CONFLICT = 5


class GarbageTest(ClusterTest):
    priorities = (100, 200)

    def held(self):
        mount = self.cluster.cli('mount', 'stat', 'store-1', '-o', 'json').json
        return (int(mount.get('heldUploadCount', 0)),
                int(mount.get('heldUploadBytes', 0)))

    def status(self):
        return self.cluster.cli('cluster', 'status', '-o', 'json',
                                check=False)

    def codes(self):
        status = self.status()
        return ({c['code'] for c in status.json.get('checks', [])}
                if status.out else {'none'})

    def uploads(self):
        """Uploads with bytes in flight on store-1."""
        return [n for n in self.cluster.inflight('store-1')
                if not n.endswith('.state')]

    def kinds(self, kind):
        return self.cluster.cli('events', '--kind', kind).text.splitlines()

    def begin_and_abandon(self, count):
        # One whose place takes long to prepare would go to the other mount.
        self.cluster.cli('mount', 'cordon', 'store-2')
        puts = [self.cluster.spawn_cli('image', 'put', '-')
                for _ in range(count)]
        for i, put in enumerate(puts):
            put.stdin.write(random_bytes(2 * MIB, i))
            put.stdin.flush()
        wait_until('all have bytes on the mount', lambda: len(
            self.uploads()) == count and all(os.path.getsize(os.path.join(
                self.cluster.paths['store-1'], '.predella', 'inflight', n)) >=
                MIB for n in self.uploads()), 60)
        for put in puts:
            put.kill()
            put.wait(30)
            for stream in (put.stdin, put.stdout, put.stderr):
                stream.close()
        self.cluster.cli('mount', 'uncordon', 'store-2')

    def forget(self, begin):
        """An index from before what `begin` does comes back, and is done with
        RECOVERING."""
        cluster = self.cluster
        cluster.coordinator.kill()
        index = os.path.join(cluster.state, 'index')
        shutil.copytree(index, index + '.old')
        cluster.coordinator.start()
        cluster.wait_ready()
        begin()
        cluster.coordinator.kill()
        shutil.rmtree(index)
        os.rename(index + '.old', index)
        cluster.coordinator.start()
        wait_until('RECOVERING has ended', lambda: not {
            'RECOVERING', 'none', 'MOUNT_UNKNOWN'} & self.codes())
        cluster.wait_ready()

    def test_what_an_index_has_forgotten_waits_for_an_operator(self):
        cluster = self.cluster
        self.forget(lambda: self.begin_and_abandon(UPLOADS))
        there = self.uploads()
        self.assertEqual(len(there), UPLOADS)
        # The mount is trusted by now, and nothing has to start again for it.
        wait_until('they are held', lambda: self.held()[0] == UPLOADS)
        self.assertEqual(self.uploads(), there)
        # The agent is the one that served these uploads, then one that finds
        # them.
        for daemon in (cluster.coordinator, cluster.agents['store-1'],
                       cluster.coordinator):
            daemon.kill()
            daemon.start()
            cluster.wait_ready()
            wait_until(f'they are held after a start of {daemon.name}',
                       lambda: self.held()[0] == UPLOADS)
            self.assertEqual(self.uploads(), there)
        self.assertGreaterEqual(self.held()[1], UPLOADS * MIB)
        checks = {c['code']: c for c in self.status().json['checks']}
        self.assertEqual(checks['GARBAGE_HELD']['mount'], 'mounts/store-1')
        self.assertIn(f'{UPLOADS} uploads', checks['GARBAGE_HELD']['detail'])
        self.assertIn('predella mount collect-garbage store-1',
                      checks['GARBAGE_HELD']['nextStep'])
        # Nothing else is held up by it.
        image = cluster.put(b'goes on')
        self.assertEqual(cluster.where(image), ['store-1'])
        wait_until('it is among the events',
                   lambda: len(self.kinds('garbage_held')) == 1, 30)

        dry = cluster.cli('mount', 'collect-garbage', 'store-1')
        self.assertIn(f'would be store-1: the bytes of {UPLOADS} ended uploads',
                      dry.text)
        step = f'--accept-upload-count {UPLOADS} --yes'
        self.assertIn(step, dry.err)
        wrong = cluster.cli('mount', 'collect-garbage', 'store-1',
                            '--accept-upload-count', str(UPLOADS - 1), '--yes',
                            check=False)
        self.assertEqual(wrong.code, CONFLICT, wrong.err)
        self.assertIn('GARBAGE_CHANGED', wrong.err)
        self.assertEqual(self.uploads(), there)
        cluster.cli('mount', 'collect-garbage', 'store-1', *step.split())
        self.assertEqual(self.cluster.inflight('store-1'), [])
        self.assertEqual(self.held(), (0, 0))
        self.assertNotIn('GARBAGE_HELD', self.codes())
        self.assertEqual(len(self.kinds('garbage_collected')), 1)
        self.assertEqual(cluster.get(image), b'goes on')

    def test_a_few_go_by_themselves(self):
        inflight = os.path.join(self.cluster.paths['store-1'], '.predella',
                                'inflight')
        agent = self.cluster.agents['store-1']
        agent.kill()
        for i in range(3):
            # Its state was lost: nobody knows whose it is.
            with open(os.path.join(inflight, str(uuid.uuid4())), 'wb') as f:
                f.write(random_bytes(1000, i))
        agent.start()
        self.cluster.wait_ready()
        wait_until('they are gone', lambda: not self.uploads())
        self.assertEqual(self.held(), (0, 0))


if __name__ == '__main__':
    unittest.main(verbosity=2)
