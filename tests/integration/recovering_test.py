"""A coordinator started on an old copy of its state directory."""
import glob
import json
import os
import re
import shutil
import unittest
import uuid

from cluster import MIB, ClusterTest, random_bytes, wait_until


class RecoveringTest(ClusterTest):
    priorities = (100, 200)

    def copy_state(self):
        """As a backup of a stopped coordinator."""
        cluster = self.cluster
        cluster.coordinator.kill()
        shutil.copytree(cluster.state, cluster.state + '.old')
        cluster.coordinator.start()
        cluster.wait_ready()

    def put_back(self, start_agents=True, whole=False):
        """The index as it was, or the whole state directory: then the epoch
        beside the index is old too, and is given a second time."""
        cluster = self.cluster
        cluster.coordinator.kill()
        part = '' if whole else 'index'
        path = os.path.join(cluster.state, part).rstrip('/')
        shutil.rmtree(path)
        shutil.copytree(os.path.join(cluster.state + '.old', part), path)
        if not start_agents:
            for agent in cluster.agents.values():
                agent.kill()
        cluster.coordinator.start()

    def codes(self):
        status = self.cluster.cli('cluster', 'status', '-o', 'json',
                                  check=False)
        return ([c['code'] for c in status.json.get('checks', [])]
                if status.out else ['none'])

    def wait_recovered(self):
        wait_until('RECOVERING has ended',
                   lambda: not {'RECOVERING', 'none', 'MOUNT_UNKNOWN'} &
                   set(self.codes()))
        self.cluster.wait_ready()

    def test_what_was_stored_since_is_there_again(self):
        self.stored_since(whole=False)

    def test_so_it_is_after_a_copy_of_the_whole_state_directory(self):
        self.stored_since(whole=True)

    def start_above_the_epoch_that_is_named(self):
        """Given twice, the epoch would be two starts' at once: refused."""
        wait_until('it is refused', lambda: 'STALE_EPOCH' in self.codes())
        status = self.cluster.cli('cluster', 'status', check=False).text
        epoch = re.search(r'--epoch-above (\d+)', status)[1]
        coordinator = self.cluster.coordinator
        coordinator.kill()
        argv = coordinator.argv
        coordinator.argv = [*argv, '--epoch-above', epoch]
        coordinator.start()
        coordinator.argv = argv

    def stored_since(self, whole):
        cluster = self.cluster
        before = cluster.put(b'before')
        self.copy_state()
        data = {cluster.put(random_bytes(2 * MIB + i, i), '--id',
                            str(uuid.uuid4())): i for i in range(6)}
        gone = cluster.put(b'deleted since')
        cluster.cli('image', 'rm', gone)
        stat = {i: cluster.cli('image', 'stat', i, '-o', 'json').json
                for i in data}
        self.put_back(whole=whole)
        if whole:
            self.start_above_the_epoch_that_is_named()
        self.wait_recovered()
        self.assertEqual(cluster.get(before), b'before')
        for image, i in data.items():
            self.assert_same(cluster.get(image), random_bytes(2 * MIB + i, i),
                             image)
            now = cluster.cli('image', 'stat', image, '-o', 'json').json
            for key in ('generation', 'crc32cHex', 'locationKey', 'upload',
                        'sizeBytes'):
                self.assertEqual(now[key], stat[image][key], key)
        missing = cluster.cli('image', 'stat', gone, check=False)
        self.assertEqual(missing.code, 3, missing.err)
        # It is a working cluster again, removals included.
        first = next(iter(data))
        cluster.cli('image', 'rm', first)
        wait_until('the file is removed', lambda: not any(
            first in cluster.files(name) for name in cluster.paths))
        # And nothing of it is left at the next start.
        cluster.coordinator.kill()
        cluster.coordinator.start()
        cluster.wait_ready()
        self.assertNotIn('RECOVERING', self.codes())

    def test_a_mount_that_is_away_is_named_and_waited_for(self):
        cluster = self.cluster
        self.copy_state()
        image = cluster.put(b'stored since')
        self.put_back(start_agents=False)
        cluster.agents['store-1'].start()
        wait_until('it is adopted', lambda: cluster.cli(
            'image', 'stat', image, check=False).code == 0)
        status = cluster.cli('cluster', 'status', check=False)
        self.assertEqual(status.code, 6)
        self.assertRegex(status.out.decode(), 'waiting for store-2')
        retire = ('mount', 'retire', 'store-2', '--accept-lost', '0', '--yes')
        self.assertIn('RECOVERING', cluster.cli(*retire, check=False).err)
        cluster.cli(*retire, '--accept-unlisted')
        wait_until('RECOVERING has ended',
                   lambda: 'RECOVERING' not in self.codes())
        self.assertEqual(cluster.get(image), b'stored since')

    def test_a_mount_that_was_added_since_is_waited_for(self):
        cluster = self.cluster
        self.copy_state()
        path = os.path.join(cluster.top, 'store-3')
        os.mkdir(path)
        cluster.add_mount('store-3', path, 50)
        cluster.init_mounts()
        cluster.agents['store-3'].start()
        cluster.wait_ready()
        image = cluster.put(b'on the new one')
        self.assertEqual(cluster.where(image), ['store-3'])
        wait_until('the others know of it', self.roster_names_it)
        self.put_back(start_agents=False)
        for name in ('store-1', 'store-2'):
            cluster.agents[name].start()
        wait_until('it is waited for', lambda: 'waiting for store-3' in
                   cluster.cli('cluster', 'status', check=False).text)
        self.assertEqual(cluster.cli('image', 'stat', image, check=False).code,
                         4)
        cluster.agents['store-3'].start()
        self.wait_recovered()
        self.assertEqual(cluster.get(image), b'on the new one')

    def roster_names_it(self):
        """Beside the tombstones of a mount."""
        with open(os.path.join(self.cluster.paths['store-1'], '.predella',
                               'tombstones'), 'rb') as f:
            return b'store-3' in f.read()

    def test_a_record_that_cannot_vouch_is_named(self):
        cluster = self.cluster
        self.copy_state()
        image = cluster.put(b'its record is damaged')
        self.put_back(start_agents=False)
        record = glob.glob(os.path.join(cluster.paths['store-1'], '.predella',
                                        'records', '*', image))[0]
        with open(record, 'r+b') as f:
            f.seek(40)
            byte = f.read(1)
            f.seek(40)
            f.write(bytes([byte[0] ^ 1]))
        for agent in cluster.agents.values():
            agent.start()
        self.wait_recovered()
        stat = cluster.cli('image', 'stat', image, check=False)
        self.assertNotEqual(stat.code, 3, 'never said to be missing')
        self.assertIn('store-1', stat.err)
        self.assertIn('FILES_NOT_ADOPTED', self.codes())
        # Nor by a later start, before its mount is there and was listed.
        cluster.coordinator.kill()
        for agent in cluster.agents.values():
            agent.kill()
        cluster.coordinator.start()
        wait_until('it is answered', lambda: cluster.cli(
            'image', 'stat', image, check=False).err == stat.err)
        cluster.agents['store-2'].start()
        cluster.agents['store-1'].start()
        cluster.wait_ready()
        again = cluster.cli('image', 'stat', image, check=False)
        self.assertEqual((again.code, again.err), (stat.code, stat.err))
        self.assertIn('FILES_NOT_ADOPTED', self.codes())

    def test_two_images_of_one_id_are_a_conflict_until_one_is_chosen(self):
        cluster = self.cluster
        self.copy_state()
        image = str(uuid.uuid4())
        cluster.put(b'of the lost history', '--id', image)
        lost = cluster.cli('image', 'stat', image, '-o', 'json').json
        self.put_back(start_agents=False)
        cluster.agents['store-2'].start()
        wait_until('it stores again', lambda: cluster.cli(
            'image', 'put', '-', '--id', image, data=b'of the present one',
            check=False).code == 0)
        cluster.agents['store-1'].start()
        self.wait_recovered()
        self.assertIn('IMAGE_CONFLICT', self.codes())
        stat = cluster.cli('image', 'stat', image, '-o', 'json').json
        self.assertEqual([c['generation'] for c in stat['conflicts']],
                         [lost['generation']])
        self.assertEqual(cluster.get(image), b'of the present one')
        refused = cluster.cli('image', 'rm', image, check=False)
        self.assertEqual(refused.code, 5, refused.err)
        self.assertIn('image choose', refused.err)
        choose = ('image', 'choose', image, lost['generation'])
        self.assertEqual(cluster.cli(*choose, check=False).code, 2)
        cluster.cli(*choose, '--dry-run')
        self.assertEqual(cluster.get(image), b'of the present one')
        cluster.cli(*choose, '--yes')
        self.assertEqual(cluster.get(image), b'of the lost history')
        wait_until('the other is removed',
                   lambda: image not in cluster.files('store-2'))
        self.assertNotIn('IMAGE_CONFLICT', self.codes())
        listed = json.loads(cluster.cli('image', 'ls', '-o', 'json').out)
        self.assertEqual(len(listed['images']), 1)


if __name__ == '__main__':
    unittest.main()
