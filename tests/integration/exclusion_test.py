"""Nobody acts twice and nobody writes to the wrong place."""
import os
import shutil
import unittest

from cluster import (Cluster, ClusterTest, Daemon, binary, run, wait_until)


class ExclusionTest(ClusterTest):
    priorities = (100,)

    def second(self, daemon, *changes):
        argv = list(daemon.argv)
        for flag, value in changes:
            argv[argv.index(flag) + 1] = value
        return run(argv, timeout=20)

    def test_second_coordinator_on_the_state_directory(self):
        result = self.second(
            self.cluster.coordinator,
            ('--listen', f'unix:{self.cluster.sockets}/c2'))
        self.assertNotEqual(result.code, 0)
        self.assertIn(str(self.cluster.coordinator.process.pid), result.err)
        self.cluster.put(b'the first one goes on')

    def test_second_agent_on_the_directory(self):
        agent = self.cluster.agents['store-1']
        result = self.second(
            agent, ('--listen', f'unix:{self.cluster.sockets}/s2'))
        self.assertNotEqual(result.code, 0)
        self.assertIn(str(agent.process.pid), result.err)
        self.cluster.put(b'the first one goes on')

    def test_directory_without_label_is_never_written(self):
        agent = self.cluster.agents['store-1']
        agent.kill()
        path = self.cluster.paths['store-1']
        aside = path + '.aside'
        os.rename(path, aside)
        os.mkdir(path)
        agent.start()

        def absent():
            mounts = self.cluster.cli('mount', 'ls', '-o', 'json').json
            return mounts['mounts'][0]['health'] == 'HEALTH_ABSENT'
        wait_until('the mount is shown ABSENT', absent)
        put = self.cluster.cli('image', 'put', '-', data=b'x', check=False)
        self.assertNotEqual(put.code, 0)
        self.assertEqual(os.listdir(path), [])
        # It heals without a restart.
        os.rmdir(path)
        os.rename(aside, path)
        self.cluster.wait_ready()
        self.cluster.put(b'x')

    def test_mount_of_another_cluster_is_refused(self):
        other = Cluster(priorities=(100, 200))
        self.addCleanup(other.stop)
        other.start()
        other.stop(keep=True)
        stranger = Daemon('stranger', [
            binary('predella-agent'), '--name', 'store-2', '--path',
            other.paths['store-2'], '--coordinator', self.cluster.endpoint,
            '--listen', f'unix:{self.cluster.sockets}/x'], self.cluster.top)
        stranger.start()
        self.addCleanup(stranger.kill)
        wait_until('the refusal is logged',
                   lambda: 'CLUSTER_MISMATCH' in stranger.log() or
                   'belongs to the cluster' in stranger.log())
        self.assertEqual(self.cluster.where(self.cluster.put(b'x')),
                         ['store-1'])

    def test_lost_index_beside_labelled_mounts_is_refused(self):
        self.cluster.put(b'x')
        self.cluster.coordinator.kill()
        shutil.rmtree(os.path.join(self.cluster.state, 'index'))
        result = self.second(self.cluster.coordinator)
        self.assertNotEqual(result.code, 0)
        self.assertIn('index', result.err)


if __name__ == '__main__':
    unittest.main(verbosity=2)
