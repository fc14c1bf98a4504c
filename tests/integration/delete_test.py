"""Deletes: with mounts away, and the same id again."""
import os
import shutil
import unittest
import uuid

from cluster import (ClusterTest, binary, random_bytes, run, wait_until)


class DeleteTest(ClusterTest):
    priorities = (100, 200)

    def test_late_delete_does_not_touch_the_new_image(self):
        image = str(uuid.uuid4())
        self.cluster.put(b'the old one', '--id', image)
        self.assertEqual(self.cluster.where(image), ['store-1'])
        self.cluster.agents['store-1'].kill()
        # store-2 takes the copy of the tombstone.
        self.cluster.cli('image', 'rm', image)
        self.assertEqual(self.cluster.cli('image', 'stat', image,
                                          check=False).code, 3)
        self.cluster.put(b'the new one', '--id', image)
        self.assertEqual(self.cluster.where(image), ['store-2'])
        self.assertEqual(self.cluster.files('store-1'), [image])
        self.cluster.agents['store-1'].start()
        wait_until('the old file is removed',
                   lambda: self.cluster.files('store-1') == [])
        self.assertEqual(self.cluster.get(image), b'the new one')

    def test_deleted_while_everything_else_is_away(self):
        image = self.cluster.put(random_bytes(5000, 1))
        self.cluster.agents['store-1'].kill()
        self.cluster.agents['store-2'].kill()
        refused = self.cluster.cli('image', 'rm', image, check=False)
        self.assertEqual(refused.code, 4, refused.err)
        self.assertIn('NO_TOMBSTONE_COPY', refused.err)
        for agent in self.cluster.agents.values():
            agent.start()
        self.cluster.wait_ready()
        # The tombstone stayed: the repeated call goes on at its copy, unless
        # the coordinator has done all of it meanwhile.
        again = self.cluster.cli('image', 'rm', image, check=False)
        self.assertIn(again.code, (0, 3), again.err)
        wait_until('the file is removed',
                   lambda: self.cluster.files('store-1') == [])
        self.assertEqual(self.cluster.cli('image', 'stat', image,
                                          check=False).code, 3)

    def test_unknown_id_is_unavailable_while_a_mount_is_missing(self):
        self.cluster.coordinator.kill()
        self.cluster.agents['store-2'].kill()
        self.cluster.coordinator.start()
        self.cluster.wait_ready(['store-1'])
        unknown = str(uuid.uuid4())
        result = self.cluster.cli('image', 'stat', unknown, check=False)
        self.assertEqual(result.code, 4, result.err)
        self.assertIn('store-2', result.err)
        self.cluster.cli('mount', 'maintenance', 'store-2', '--for', '1h')
        result = self.cluster.cli('image', 'stat', unknown, check=False)
        self.assertEqual(result.code, 3, result.err)

    def bears(self, name, image):
        """Whether a copy of the image's delete lies on the mount."""
        path = os.path.join(self.cluster.paths[name], '.predella/tombstones')
        with open(path, 'rb') as file:
            return uuid.UUID(image).bytes in file.read()

    def test_a_retired_mount_takes_no_copy(self):
        image = self.cluster.put(random_bytes(5000, 1))
        self.assertEqual(self.cluster.where(image), ['store-1'])
        self.cluster.cli('mount', 'retire', 'store-2', '--yes')
        self.cluster.agents['store-1'].kill()
        refused = self.cluster.cli('image', 'rm', image, check=False)
        self.assertEqual(refused.code, 4, refused.err)
        self.assertIn('NO_TOMBSTONE_COPY', refused.err)
        self.assertFalse(self.bears('store-2', image))

    def test_the_file_of_deletes_is_removed_under_a_living_agent(self):
        cluster = self.cluster
        image = cluster.put(random_bytes(5000, 1))
        self.assertEqual(cluster.where(image), ['store-1'])
        files = [os.path.join(cluster.paths[name], '.predella/tombstones')
                 for name in ('store-1', 'store-2')]
        size = os.path.getsize(files[0])
        for path in files:
            os.unlink(path)
        refused = cluster.cli('image', 'rm', image, check=False)
        self.assertEqual(refused.code, 4, refused.err)
        self.assertIn('NO_TOMBSTONE_COPY', refused.err)

        def absent():
            status = cluster.cli('cluster', 'status', '-o', 'json',
                                 check=False)
            return [c['mount'] for c in status.json.get('checks', [])
                    if c['code'] == 'MOUNT_ABSENT'
                    and '.predella/tombstones' in c['detail']
                    ] == ['mounts/store-1', 'mounts/store-2']
        wait_until('both are absent', absent, 10)
        for path in files:
            with open(path, 'wb') as file:
                file.truncate(size)
        cluster.wait_ready(timeout=20)
        wait_until('the delete is on a mount', lambda: self.bears(
            'store-1', image) or self.bears('store-2', image), 10)

    def test_a_copy_that_a_mount_lost_is_written_anew(self):
        cluster = self.cluster
        image = cluster.put(random_bytes(5000, 1))
        self.assertEqual(cluster.where(image), ['store-1'])
        cluster.agents['store-1'].kill()
        cluster.cli('image', 'rm', image)
        self.assertTrue(self.bears('store-2', image))
        cluster.agents['store-2'].kill()
        path = os.path.join(cluster.paths['store-2'], '.predella/tombstones')
        with open(path, 'wb'):
            pass
        cluster.agents['store-2'].start()
        wait_until('the copy is there again',
                   lambda: self.bears('store-2', image))
        # With it the image stays deleted when the index is lost.
        cluster.coordinator.kill()
        shutil.rmtree(os.path.join(cluster.state, 'index'))
        cluster.agents['store-1'].start()
        made = run([binary('predella'), 'index', 'rebuild', '--state-dir',
                    cluster.state, '--datadirs',
                    ','.join(cluster.paths.values()), '--yes'])
        self.assertEqual(made.code, 0, made.text)
        cluster.coordinator.start()
        cluster.wait_ready()
        wait_until('the file is removed',
                   lambda: cluster.files('store-1') == [])
        stat = cluster.cli('image', 'stat', image, check=False)
        self.assertEqual(stat.code, 3, stat.err)

    def test_retire_names_what_is_lost(self):
        first = self.cluster.put(b'shown, and deleted')
        shown = self.cluster.loss('retire', 'store-1')
        self.cluster.cli('image', 'rm', first)
        image = self.cluster.put(b'only copy')
        # As many as were shown, and another one.
        other = self.cluster.cli('mount', 'retire', 'store-1', '--accept-lost',
                                 shown, '--yes', check=False)
        self.assertEqual(other.code, 5, other.err)
        self.assertIn(image, other.text)
        self.assertEqual(self.cluster.get(image), b'only copy')
        self.cluster.agents['store-1'].kill()
        refused = self.cluster.cli('mount', 'retire', 'store-1', '--yes',
                                   check=False)
        self.assertNotEqual(refused.code, 0)
        self.assertIn('1', refused.err)
        self.cluster.cli('mount', 'retire', 'store-1', '--accept-lost',
                         self.cluster.loss('retire', 'store-1'), '--yes')
        stat = self.cluster.cli('image', 'stat', image, '-o', 'json').json
        self.assertEqual(stat['health'], 'IMAGE_HEALTH_LOST')
        self.assertEqual(self.cluster.where(self.cluster.put(b'goes on')),
                         ['store-2'])


if __name__ == '__main__':
    unittest.main(verbosity=2)
