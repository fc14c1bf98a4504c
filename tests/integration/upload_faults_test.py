"""Processes killed in the middle of uploads, and clients that vanish."""
import os
import threading
import time
import unittest
import uuid

from cluster import MIB, ClusterTest, random_bytes, wait_until


class Upload:
    """`predella image put -` fed by the test."""

    def __init__(self, cluster, *args):
        self.process = cluster.spawn_cli('image', 'put', '-', *args)
        self.out = b''
        self.err = b''

    def feed(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def finish(self, timeout=90):
        """Ends the input; returns (exit code, image id)."""
        self.process.stdin.close()
        self.process.stdin = None
        self.out, self.err = self.process.communicate(timeout=timeout)
        lines = self.out.decode().split()
        return self.process.returncode, lines[-1] if lines else ''


class StoppedAgentTest(ClusterTest):
    priorities = (100, 200)

    def test_an_upload_under_way_goes_on_elsewhere(self):
        """Its connection is open, and full of bytes that nobody takes."""
        data = random_bytes(28 * MIB, 3)
        upload = Upload(self.cluster)
        upload.feed(data[:8 * MIB])
        wait_until('bytes have arrived at the mount',
                   lambda: self.cluster.inflight('store-1'))
        agent = self.cluster.agents['store-1']
        agent.pause()
        try:
            feeder = threading.Thread(
                target=lambda: upload.feed(data[8 * MIB:]))
            feeder.start()
            feeder.join(60)
            # 30 s without a message, and then anew on the other mount.
            code, image = upload.finish(timeout=100)
            self.assertEqual(code, 0, upload.err.decode())
            self.assert_same(self.cluster.get(image), data, 'elsewhere')
        finally:
            agent.resume()

    def test_an_upload_that_could_not_be_started_holds_no_room(self):
        """Both agents take the order when they go on, for nobody."""
        agents = self.cluster.agents.values()
        for agent in agents:
            agent.pause()
        try:
            put = self.cluster.cli('image', 'put', '-', data=b'panel',
                                   check=False)
        finally:
            for agent in agents:
                agent.resume()
        self.assertIn('no upload could be started', put.err)
        wait_until('nothing is open or promised', lambda: (
            not self.cluster.cli('upload', 'ls', '-o', 'json')
            .json.get('uploads') and self.promised() == 0))
        for name in self.cluster.agents:
            wait_until('nothing of it is left',
                       lambda name=name: not self.cluster.inflight(name))

    def promised(self):
        return sum(int(mount.get('promisedBytes', 0)) for mount in
                   self.cluster.cli('mount', 'ls', '-o', 'json')
                   .json['mounts'])


class KillTest(ClusterTest):
    priorities = (100,)

    def upload_with(self, fault, *args, before=20, after=20):
        """Feeds `before` MiB, calls fault(), feeds `after` MiB."""
        data = random_bytes((before + after) * MIB, 1)
        upload = Upload(self.cluster, *args)
        upload.feed(data[:before * MIB])
        wait_until('bytes have arrived at the mount',
                   lambda: self.cluster.inflight('store-1'))
        fault()
        feeder = threading.Thread(
            target=lambda: upload.feed(data[before * MIB:]))
        feeder.start()
        feeder.join(60)
        code, image = upload.finish()
        self.assertEqual(code, 0, upload.err.decode())
        self.assert_same(self.cluster.get(image), data, 'after the fault')
        wait_until('nothing is left in flight',
                   lambda: not self.cluster.inflight('store-1'))

    def restart_agent(self):
        agent = self.cluster.agents['store-1']
        agent.kill()
        agent.start()

    def restart_coordinator(self):
        self.cluster.coordinator.kill()
        self.cluster.coordinator.start()

    def test_agent_killed_in_the_middle(self):
        self.upload_with(self.restart_agent)

    def test_coordinator_killed_in_the_middle(self):
        self.upload_with(self.restart_coordinator)

    def test_known_size_and_both_killed_in_the_middle(self):
        def both():
            self.restart_agent()
            self.restart_coordinator()
        self.upload_with(both, '--size', str(40 * MIB))

    def test_coordinator_away_at_the_commit(self):
        data = random_bytes(10 * MIB, 2)
        upload = Upload(self.cluster)
        upload.feed(data)
        wait_until('bytes have arrived',
                   lambda: self.cluster.inflight('store-1'))
        self.cluster.coordinator.kill()
        timer = threading.Timer(3, self.cluster.coordinator.start)
        timer.start()
        code, image = upload.finish()
        timer.join()
        self.assertEqual(code, 0, upload.err.decode())
        self.cluster.wait_ready()
        self.assert_same(self.cluster.get(image), data, 'after the commit')

    def test_acknowledged_images_survive_the_death_of_everything(self):
        images = {self.cluster.put(random_bytes(100_000 + i, i)): i
                  for i in range(5)}
        self.cluster.coordinator.kill()
        self.cluster.agents['store-1'].kill()
        self.cluster.coordinator.start()
        self.cluster.agents['store-1'].start()
        self.cluster.wait_ready()
        for image, i in images.items():
            self.assert_same(self.cluster.get(image),
                             random_bytes(100_000 + i, i), image)


class ClientTest(ClusterTest):
    priorities = (100,)

    def test_client_killed_leaves_nothing_visible_and_a_new_one_takes_over(self):
        image = str(uuid.uuid4())
        upload = Upload(self.cluster, '--id', image)
        upload.feed(random_bytes(8 * MIB, 4))
        wait_until('bytes have arrived',
                   lambda: self.cluster.inflight('store-1'))
        in_progress = self.cluster.cli('image', 'put', '-', '--id', image,
                                       data=b'x', check=False)
        self.assertNotEqual(in_progress.code, 0)
        self.assertIn('UPLOAD_IN_PROGRESS', in_progress.err)
        upload.process.kill()
        upload.process.communicate()
        stat = self.cluster.cli('image', 'stat', image, check=False)
        self.assertEqual(stat.code, 3, stat.err)

        def takes_over():
            return self.cluster.cli('image', 'put', '-', '--id', image,
                                    data=b'the second', check=False).code == 0
        wait_until('a second upload takes over', takes_over)
        self.assertEqual(self.cluster.get(image), b'the second')
        wait_until('the loser is removed',
                   lambda: not self.cluster.inflight('store-1'))
        self.assertEqual(self.cluster.files('store-1'), [image])

    def test_an_upload_to_a_mount_that_is_retired_leaves_nothing(self):
        """Nothing is acknowledged there, and nothing is published either."""
        upload = Upload(self.cluster)
        upload.feed(random_bytes(8 * MIB, 4))
        wait_until('bytes have arrived',
                   lambda: self.cluster.inflight('store-1'))
        self.cluster.cli('mount', 'retire', 'store-1', '--accept-lost', '0',
                         '--yes')
        code, _ = upload.finish()
        self.assertNotEqual(code, 0)
        self.assertIn('retired', upload.err.decode())
        wait_until('what it wrote is removed',
                   lambda: not self.cluster.inflight('store-1'))
        self.assertEqual(self.cluster.files('store-1'), [])

    def test_sizes_that_disagree_are_refused(self):
        result = self.cluster.cli('image', 'put', '-', '--size', '5',
                                  data=b'more than five', check=False)
        self.assertNotEqual(result.code, 0)
        result = self.cluster.cli('image', 'put', '-', '--size', '50',
                                  data=b'less', check=False)
        self.assertNotEqual(result.code, 0)
        self.assertEqual(self.cluster.files('store-1'), [])

    def test_fifty_uploads_at_once(self):
        results = {}

        def one(i):
            data = random_bytes(300_000 + i, i)
            results[i] = (self.cluster.put(data), data)
        threads = [threading.Thread(target=one, args=(i,)) for i in range(50)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(len(results), 50)
        for image, data in results.values():
            self.assert_same(self.cluster.get(image), data, image)


class DamageTest(ClusterTest):
    priorities = (100,)

    def test_a_flipped_byte_is_never_served(self):
        data = random_bytes(3 * MIB, 9)
        image = self.cluster.put(data)
        path = os.path.join(self.cluster.paths['store-1'], image)
        with open(path, 'r+b') as f:
            f.seek(2 * MIB + 100)
            byte = f.read(1)
            f.seek(2 * MIB + 100)
            f.write(bytes([byte[0] ^ 1]))
        result = self.cluster.cli('image', 'get', image, check=False)
        self.assertNotEqual(result.code, 0)
        self.assertIn('CHECKSUM_MISMATCH', result.err)
        self.assert_same(result.out, data[:len(result.out)], 'what was served')
        self.assert_same(
            self.cluster.get(image, '--offset', '0', '--length', str(MIB)),
            data[:MIB], 'the first MiB is good')


if __name__ == '__main__':
    unittest.main(verbosity=2)
