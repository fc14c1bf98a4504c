"""Mounts that fill up. Needs root: small tmpfs in a mount namespace of its
own, which run_in_namespace.sh makes."""
import os
import threading
import unittest

from cluster import MIB, Cluster, ClusterTest, random_bytes, wait_until
from namespace_mounts import make_tmpfs, need_namespace


class FullTest(ClusterTest):
    sizes = (32, 96, 128)  # MiB

    def setUp(self):
        need_namespace(self)
        directories = make_tmpfs(self, *self.sizes)
        self.cluster = Cluster((100, 200, 300), directories,
                               agent_args=('--reserve', '1MiB'))
        self.addCleanup(self._stop)
        self.cluster.start()

    def test_known_size_goes_where_there_is_room(self):
        image = self.cluster.put(random_bytes(60 * MIB, 1), '--size',
                                 str(60 * MIB))
        self.assertEqual(self.cluster.where(image), ['store-2'])

    def test_too_large_for_every_mount(self):
        result = self.cluster.cli('image', 'put', '-', '--size', '20GiB',
                                  data=b'', check=False)
        self.assertNotEqual(result.code, 0)
        self.assertIn('20 GiB', result.err)
        for name in self.cluster.paths:
            self.assertIn(name, result.err)

    def test_unknown_size_moves_on_when_its_mount_fills_up(self):
        # store-1 has 32 MiB, store-2 96, store-3 128.
        data = random_bytes(110 * MIB, 7)
        image = self.cluster.put(data)
        self.assertEqual(self.cluster.where(image), ['store-3'])
        self.assert_same(self.cluster.get(image), data, 'after the move')
        for name in self.cluster.paths:
            wait_until(f'nothing is left on {name}',
                       lambda n=name: not self.cluster.inflight(n))
        self.assertEqual(self.cluster.files('store-1'), [])
        self.assertEqual(self.cluster.files('store-2'), [])

    def feed(self, upload, data):
        """All of it, in the background."""
        def run():
            try:
                upload.stdin.write(data)
                upload.stdin.close()
            except BrokenPipeError:
                pass
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)

    def stored(self, upload, data):
        """The upload ends well, the image is whole, and nothing is left."""
        upload.wait(90)
        err = upload.stderr.read().decode()
        self.assertEqual(upload.returncode, 0, err)
        image = upload.stdout.read().decode().split()[-1]
        self.assert_same(self.cluster.get(image), data, 'after the move')
        for name in self.cluster.paths:
            wait_until(f'nothing is left on {name}',
                       lambda n=name: not self.cluster.inflight(n))
        return image

    def test_everything_is_killed_in_the_middle_of_a_move(self):
        """And comes back one after the other: the mount that was left first
        hears from the coordinator when the next one is not there yet."""
        data = random_bytes(80 * MIB, 11)
        upload = self.cluster.spawn_cli('image', 'put', '-')
        self.feed(upload, data)
        wait_until('it moves', lambda: self.cluster.inflight('store-2'))
        for daemon in (self.cluster.coordinator,
                       *self.cluster.agents.values()):
            daemon.kill()
        self.cluster.coordinator.start()
        self.cluster.agents['store-1'].start()
        self.cluster.agents['store-3'].start()
        self.cluster.wait_ready(['store-1', 'store-3'])
        self.cluster.agents['store-2'].start()
        self.stored(upload, data)

    def test_each_process_is_killed_in_the_middle_of_a_move(self):
        data = random_bytes(80 * MIB, 12)
        for victim in ('coordinator', 'store-1', 'store-2'):
            with self.subTest(victim=victim):
                upload = self.cluster.spawn_cli('image', 'put', '-')
                self.feed(upload, data)
                wait_until('it moves', lambda: self.cluster.inflight('store-2'))
                daemon = self.cluster.agents.get(victim,
                                                 self.cluster.coordinator)
                daemon.kill()
                daemon.start()
                self.cluster.cli('image', 'rm', self.stored(upload, data))
                self.cluster.wait_ready()

    def test_a_mount_fills_up_while_the_coordinator_is_away(self):
        """When it is back it knows of no other mount for a moment."""
        data = random_bytes(80 * MIB, 13)
        upload = self.cluster.spawn_cli('image', 'put', '-')
        upload.stdin.write(data[:8 * MIB])
        upload.stdin.flush()
        wait_until('it has begun', lambda: self.cluster.inflight('store-1'))
        self.cluster.coordinator.kill()
        for name in ('store-2', 'store-3'):
            self.cluster.agents[name].kill()
        self.feed(upload, data[8 * MIB:])
        wait_until('its mount is full', lambda: 'upload_full' in
                   self.cluster.agents['store-1'].log())
        self.cluster.coordinator.start()
        self.cluster.wait_ready(['store-1'])
        wait_until('the move waits', lambda: 'move_waits' in
                   self.cluster.coordinator.log())
        for name in ('store-2', 'store-3'):
            self.cluster.agents[name].start()
        self.stored(upload, data)

    def test_an_agent_that_starts_again_counts_its_bytes_once(self):
        """An upload that fits goes on where it is."""
        data = random_bytes(26 * MIB, 14)
        for turn in range(3):
            upload = self.cluster.spawn_cli('image', 'put', '-')
            self.feed(upload, data)
            wait_until('it is under way', lambda: self.on_disk('store-1') >
                       (6 + 4 * turn) * MIB)
            agent = self.cluster.agents['store-1']
            agent.kill()
            agent.start()
            image = self.stored(upload, data)
            self.assertEqual(self.cluster.where(image), ['store-1'], turn)
            self.cluster.cli('image', 'rm', image)
            self.cluster.wait_ready()

    def on_disk(self, name):
        """Bytes in use on a mount."""
        status = os.statvfs(self.cluster.paths[name])
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def test_room_of_removed_images_is_there_at_once(self):
        sizes = {'store-3': 100, 'store-2': 70, 'store-1': 20}
        for turn in range(3):
            images = []
            for name, mib in sizes.items():
                images.append(self.cluster.put(
                    random_bytes(mib * MIB, turn), '--size', str(mib * MIB)))
                self.assertEqual(self.cluster.where(images[-1]), [name])
            self.cluster.cli('image', 'rm', *images)

    def test_an_open_upload_keeps_its_space(self):
        # Placement knows of it at every moment, not only until the next word
        # of its agent.
        upload = self.cluster.spawn_cli('image', 'put', '-', '--size',
                                        str(70 * MIB))
        upload.stdin.write(bytes(MIB))
        upload.stdin.flush()
        wait_until('it is under way', lambda: self.cluster.inflight('store-2'))
        beats = set()

        def counted():
            explained = self.cluster.cli('placement', 'explain', '--size',
                                         '40MiB', '-o', 'json').json
            verdicts = {v['mount']: v['verdict']
                        for v in explained['verdicts']}
            self.assertEqual(verdicts['mounts/store-2'], 'space', explained)
            beats.add(self.cluster.cli('mount', 'stat', 'store-2', '-o', 'json'
                                       ).json['heartbeatTime'])
            return len(beats) > 3
        wait_until('its agent was heard three times more', counted)
        upload.communicate(timeout=60)

    def test_the_space_of_a_client_that_is_gone(self):
        size = str(110 * MIB)
        upload = self.cluster.spawn_cli('image', 'put', '-', '--size', size)
        upload.stdin.write(bytes(MIB))
        upload.stdin.flush()
        wait_until('it is under way', lambda: self.cluster.inflight('store-3'))
        listed = self.cluster.cli('upload', 'ls', '-o', 'json').json['uploads']
        self.assertEqual([u['target']['mount'] for u in listed],
                         ['mounts/store-3'])
        self.assertEqual(listed[0]['sizeBytes'], size)
        name = listed[0]['name'].split('/')[1]
        upload.kill()
        upload.communicate()
        refused = self.cluster.cli('image', 'put', '-', '--size', size,
                                   data=bytes(110 * MIB), check=False)
        self.assertIn('NO_SPACE_IN_CLUSTER', refused.err)
        self.assertIn('uploads that are open: 1', refused.err)
        self.assertIn('predella upload abort', refused.err)
        self.assertIn(name, self.cluster.cli('upload', 'ls').text)
        self.cluster.cli('upload', 'abort', name)
        self.assertNotIn(name, self.cluster.cli('upload', 'ls').text)
        self.cluster.put(bytes(110 * MIB), '--size', size)
        self.cluster.cli('image', 'rm', self.cluster.cli(
            'image', 'ls', '-o', 'json').json['images'][0]['name'])
        # A client that is there hears of it.
        upload = self.cluster.spawn_cli('image', 'put', '-', '--size', size)
        upload.stdin.write(bytes(MIB))
        upload.stdin.flush()
        wait_until('it is under way', lambda: self.cluster.inflight('store-3'))
        name = self.cluster.cli('upload', 'ls', '-o', 'json').json[
            'uploads'][0]['name']
        self.cluster.cli('upload', 'abort', name)
        try:
            _, err = upload.communicate(bytes(109 * MIB), timeout=60)
        except BrokenPipeError:
            err = upload.stderr.read()
        self.assertEqual(upload.returncode, 5, err.decode())
        self.assertIn('UPLOAD_ABORTED', err.decode())

    def test_the_last_inodes(self):
        directory, = make_tmpfs(self, 64, inodes=340)
        self.cluster.add_mount('few', directory, 10)
        self.cluster.init_mounts()
        self.cluster.agents['few'].start()
        self.cluster.wait_ready()
        stored = []
        for i in range(40):
            stored.append(self.cluster.put(random_bytes(1000, i)))
        places = {self.cluster.where(image)[0] for image in stored}
        self.assertEqual(places, {'few', 'store-1'})
        status = self.cluster.cli('cluster', 'status', check=False).text
        self.assertIn('MOUNT_OUT_OF_INODES', status)
        for i, image in enumerate(stored):
            self.assertEqual(self.cluster.get(image), random_bytes(1000, i))

    def test_no_room_anywhere_says_so_and_gives_the_space_back(self):
        before = {n: os.statvfs(p).f_bavail
                  for n, p in self.cluster.paths.items()}
        result = self.cluster.cli('image', 'put', '-',
                                  data=random_bytes(200 * MIB, 8),
                                  check=False)
        self.assertNotEqual(result.code, 0)
        self.assertRegex(result.err, 'NO_SPACE_IN_CLUSTER|MOUNT_FULL')
        for name, path in self.cluster.paths.items():
            # The state file's directory may have grown by a page.
            wait_until(f'the space of {name} is back',
                       lambda n=name, p=path:
                       before[n] - os.statvfs(p).f_bavail <= 4)
            self.assertEqual(self.cluster.files(name), [])

    def test_deletes_work_on_a_full_mount(self):
        image = self.cluster.put(random_bytes(20 * MIB, 2), '--size',
                                 str(20 * MIB))
        self.assertEqual(self.cluster.where(image), ['store-1'])
        filler = os.path.join(self.cluster.paths['store-1'], 'filler')
        with open(filler, 'wb') as f:
            try:
                while True:
                    f.write(b'x' * 65536)
                    f.flush()
            except OSError:
                pass
        self.cluster.cli('image', 'rm', image)
        wait_until('the file is removed',
                   lambda: image not in self.cluster.files('store-1'))


if __name__ == '__main__':
    unittest.main(verbosity=2)
