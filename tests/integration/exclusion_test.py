"""Nobody acts twice and nobody writes to the wrong place."""
import os
import shutil
import time
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

    def test_the_lock_says_who_holds_it(self):
        # A descriptor of the process used on a disk thread is one of the
        # mount's files there: once the first bytes of this one were not ours.
        lock = os.path.join(self.cluster.paths['store-1'], '.predella', 'lock')
        for _ in range(2):
            with open(lock, 'rb') as f:
                self.assertTrue(f.read().startswith(
                    b'predella-agent store-1 on '))
            self.cluster.agents['store-1'].kill()
            self.cluster.agents['store-1'].start()
            self.cluster.wait_ready()

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
        stranger_path = other.paths['store-2']
        stranger = Daemon('stranger', [
            binary('predella-agent'), '--name', 'store-2', '--path',
            other.paths['store-2'], '--coordinator', self.cluster.endpoint,
            '--listen', f'unix:{self.cluster.sockets}/x'], self.cluster.top)
        stranger.start()
        self.addCleanup(stranger.kill)
        wait_until('the refusal is logged',
                   lambda: 'CLUSTER_MISMATCH' in stranger.log() or
                   'belongs to the cluster' in stranger.log())
        # And by the coordinator, for whom asks it.
        wait_until('cluster status names it', lambda: 'CLUSTER_MISMATCH' in
                   self.status() and stranger_path in self.status())
        self.assertEqual(self.cluster.where(self.cluster.put(b'x')),
                         ['store-1'])

    def status(self):
        return self.cluster.cli('cluster', 'status', check=False).text

    def test_lost_state_directory_with_daemons_one_by_one(self):
        """A coordinator that begins anew beside the mounts of another cluster
        stores nothing, and says what is wrong."""
        image = self.cluster.put(b'kept')
        self.cluster.coordinator.kill()
        aside = self.cluster.state + '.aside'
        os.rename(self.cluster.state, aside)
        os.mkdir(self.cluster.state)
        self.cluster.coordinator.start()
        wait_until('it is named', lambda: 'CLUSTER_MISMATCH' in self.status())
        self.assertRegex(self.status(), 'state directory')
        self.assertNotRegex(self.status(), 'mount init')
        put = self.cluster.cli('image', 'put', '-', data=b'x', check=False)
        self.assertNotEqual(put.code, 0)
        doctor = self.cluster.cli('doctor', check=False)
        self.assertIn('CLUSTER_MISMATCH', doctor.text)
        # Nothing was changed: with the right one all is there.
        self.cluster.coordinator.kill()
        shutil.rmtree(self.cluster.state)
        os.rename(aside, self.cluster.state)
        self.cluster.coordinator.start()
        self.cluster.wait_ready()
        self.assertEqual(self.cluster.get(image), b'kept')

    def test_an_agent_that_never_found_its_mount_is_shown(self):
        path = os.path.join(self.cluster.top, 'new')
        os.mkdir(path)
        agent = Daemon('fresh', [
            binary('predella-agent'), '--name', 'fresh', '--path', path,
            '--coordinator', self.cluster.endpoint, '--listen',
            f'unix:{self.cluster.sockets}/fresh'], self.cluster.top)
        agent.start()
        self.addCleanup(agent.kill)
        wait_until('it is shown', lambda: 'AGENT_WITHOUT_MOUNT' in
                   self.status())
        self.assertRegex(self.status(), f'ABSENT.*\n.*mount init {path}')
        run([binary('predella'), 'mount', 'init', path, '--name', 'fresh'])
        self.cluster.wait_ready(['fresh'])
        self.assertNotIn('AGENT_WITHOUT_MOUNT', self.status())

    def test_an_old_copy_that_the_agents_refuse_is_named(self):
        """Two epochs back: agents have heard of a later one."""
        copy = self.cluster.state + '.old'
        self.cluster.coordinator.kill()
        shutil.copytree(self.cluster.state, copy)
        for _ in range(2):
            self.cluster.coordinator.start()
            self.cluster.wait_ready()
            self.cluster.coordinator.kill()
        newest = self.cluster.state + '.new'
        os.rename(self.cluster.state, newest)
        os.rename(copy, self.cluster.state)
        self.cluster.coordinator.start()
        wait_until('it is named', lambda: 'STALE_EPOCH' in self.status())
        self.assertRegex(self.status(), 'put back the newest')
        self.cluster.coordinator.kill()
        shutil.rmtree(self.cluster.state)
        os.rename(newest, self.cluster.state)
        self.cluster.coordinator.start()
        self.cluster.wait_ready()

    def test_a_damaged_layout_is_the_mounts_fault(self):
        """Never taken for an image that is not there."""
        path = self.cluster.paths['store-1']
        inflight = os.path.join(path, '.predella', 'inflight')
        os.rename(inflight, inflight + '.aside')
        put = self.cluster.cli('image', 'put', '-', data=b'x', check=False)
        self.assertEqual(put.code, 4, put.err)
        self.assertIn('MOUNT_FAILED', put.err)
        self.assertIn('.predella', put.err)
        uploads = self.cluster.cli('upload', 'ls', '-o', 'json').json
        self.assertFalse(uploads.get('uploads'))
        os.rename(inflight + '.aside', inflight)
        wait_until('it is well again', lambda: self.cluster.cli(
            'image', 'put', '-', data=b'x', check=False).code == 0)
        # A fence and tombstones that nobody can read are said to be.
        agent = self.cluster.agents['store-1']
        time.sleep(3)  # the coordinator has heard what is synced there
        agent.kill()
        for name in ('fence', 'tombstones'):
            with open(os.path.join(path, '.predella', name), 'r+b') as f:
                f.write(os.urandom(1 << 16))
                f.truncate(1 << 16)
        agent.start()
        # It can not be told from an older copy.
        wait_until('it is named', lambda: 'MOUNT_STALE' in self.status())
        self.assertRegex(self.status(), 'its file fence was damaged')
        self.assertGreaterEqual(agent.log().count('slots_damaged'), 2)
        self.cluster.cli('mount', 'confirm', 'store-1')
        self.cluster.wait_ready()

    def test_lost_index_beside_labelled_mounts_is_refused(self):
        self.cluster.put(b'x')
        self.cluster.coordinator.kill()
        shutil.rmtree(os.path.join(self.cluster.state, 'index'))
        result = self.second(self.cluster.coordinator)
        self.assertNotEqual(result.code, 0)
        self.assertIn('index', result.err)


if __name__ == '__main__':
    unittest.main(verbosity=2)
