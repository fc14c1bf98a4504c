"""What lies on the mounts, against the index: files that are taken away, put
back, or nobody knows."""
import os
import shutil
import unittest
import uuid

from cluster import MIB, ClusterTest, random_bytes, wait_until


class InventoryTest(ClusterTest):
    priorities = (100, 200)

    def status(self):
        return self.cluster.cli('cluster', 'status', '-o', 'json',
                                check=False).json

    def codes(self):
        return {check['code'] for check in self.status().get('checks', [])}

    def detail(self, code):
        return ' '.join(check['detail']
                        for check in self.status().get('checks', [])
                        if check['code'] == code)

    def path(self, name, image):
        return os.path.join(self.cluster.paths[name], image)

    def record(self, name, image):
        return os.path.join(self.cluster.paths[name], '.predella', 'records',
                            image[:2], image)

    def mount(self, name):
        return self.cluster.cli('mount', 'stat', name, '-o', 'json').json

    def restart(self, name):
        self.cluster.agents[name].kill()
        self.cluster.agents[name].start()

    def test_a_file_removed_while_its_agent_is_down_is_missed_until_back(self):
        cluster = self.cluster
        image = cluster.put(b'taken away')
        other = cluster.put(b'left alone')
        self.assertEqual(cluster.where(image), ['store-1'])
        cluster.agents['store-1'].kill()
        aside = os.path.join(cluster.top, 'aside')
        os.rename(self.path('store-1', image), aside)
        cluster.agents['store-1'].start()
        wait_until('it is missed', lambda: 'COPIES_MISSING' in self.codes())
        self.assertIn('store-1: 1 copies', self.detail('COPIES_MISSING'))
        # Never deleted, never said not to be.
        self.assertEqual(
            cluster.cli('image', 'stat', image, check=False).code, 0)
        self.assertNotEqual(
            cluster.cli('image', 'get', image, check=False).code, 0)
        self.assertEqual(cluster.get(other), b'left alone')
        cluster.agents['store-1'].kill()
        os.rename(aside, self.path('store-1', image))
        cluster.agents['store-1'].start()
        cluster.wait_ready()
        wait_until('it is found', lambda: 'COPIES_MISSING' not in self.codes())
        self.assertEqual(cluster.get(image), b'taken away')

    def test_it_is_seen_when_only_the_coordinator_starts_again(self):
        cluster = self.cluster
        image = cluster.put(b'taken away')
        os.remove(self.path('store-1', image))
        cluster.coordinator.kill()
        cluster.coordinator.start()
        cluster.wait_ready()
        wait_until('it is missed', lambda: 'COPIES_MISSING' in self.codes())
        # A user's delete of it is as any other.
        cluster.cli('image', 'rm', image)
        wait_until('nothing is wrong',
                   lambda: 'COPIES_MISSING' not in self.codes())

    def test_strangers_are_named_and_left_alone(self):
        cluster = self.cluster
        image = cluster.put(b'one of ours')
        strangers = {str(uuid.uuid4()): b'whose is this', 'notes.txt': b'a',
                     '.nfs0001': b'b', 'lost+found': None}
        for name, content in strangers.items():
            path = self.path('store-1', name)
            if content is None:
                os.makedirs(path, exist_ok=True)
                continue
            with open(path, 'wb') as f:
                f.write(content)
        self.restart('store-1')
        wait_until('it is named', lambda: 'ORPHANS' in self.codes())
        self.assertEqual(int(self.mount('store-1')['orphanCount']), 1)
        for name in strangers:
            self.assertTrue(os.path.exists(self.path('store-1', name)), name)
        self.assertEqual(cluster.get(image), b'one of ours')

    def move(self, image, source, target, record):
        """As an operator with mv, while the daemons run."""
        os.rename(self.path(source, image), self.path(target, image))
        if record:
            os.rename(self.record(source, image), self.record(target, image))

    def test_the_row_follows_a_file_that_was_moved_by_hand(self):
        cluster = self.cluster
        data = {cluster.put(random_bytes(3 * MIB + i, i)): i for i in range(2)}
        for image, i in data.items():
            self.assertEqual(cluster.where(image), ['store-1'])
            self.move(image, 'store-1', 'store-2', record=i == 1)
        for name in ('store-1', 'store-2'):
            self.restart(name)
        for image, i in data.items():
            wait_until('the row follows',
                       lambda: cluster.where(image) == ['store-2'])
            self.assert_same(cluster.get(image), random_bytes(3 * MIB + i, i),
                             image)
            self.assertTrue(os.path.exists(self.record('store-2', image)))
        wait_until('nothing is wrong', lambda: not self.codes())
        first = next(iter(data))
        cluster.cli('image', 'rm', first)
        wait_until('it is removed there',
                   lambda: first not in cluster.files('store-2'))

    def test_other_bytes_under_a_moved_name_stay_a_strangers(self):
        cluster = self.cluster
        image = cluster.put(b'the bytes of it')
        os.remove(self.path('store-1', image))
        with open(self.path('store-2', image), 'wb') as f:
            f.write(b'quite others..!')
        for name in ('store-1', 'store-2'):
            self.restart(name)
        wait_until('it is named', lambda: 'other bytes' in cluster.cli(
            'orphan', 'ls', 'store-2', check=False).text)
        self.assertEqual(cluster.where(image), ['store-1'])
        self.assertIn('COPIES_MISSING', self.codes())
        self.assertFalse(os.path.exists(self.record('store-2', image)))
        self.assertTrue(os.path.exists(self.path('store-2', image)))

    def test_a_lost_record_is_written_anew_when_told(self):
        cluster = self.cluster
        image = cluster.put(b'its record goes')
        path = self.path('store-1', image)
        os.unlink(self.record('store-1', image))
        cluster.cli('index', 'check', check=False)
        self.assertIn('COPIES_MISSING', self.codes())
        adopt = ('orphan', 'adopt', 'store-1', image, '--read')
        with open(os.path.join(cluster.top, 'other'), 'wb') as other:
            other.write(b'its record went')
        self.assertNotEqual(
            0, cluster.cli(*adopt, other.name, check=False).code)
        with open(path, 'r+b') as stream:
            stream.write(b'IT')
        damaged = cluster.cli(*adopt, path, check=False)
        self.assertNotEqual(0, damaged.code, damaged.text)
        self.assertFalse(os.path.exists(self.record('store-1', image)))
        with open(path, 'r+b') as stream:
            stream.write(b'it')
        self.assertIn('written anew', cluster.cli(*adopt, path).text)
        self.assert_same(cluster.get(image), b'its record goes', 'mended')
        self.assertNotIn('COPIES_MISSING', self.codes())
        os.unlink(path)
        gone = cluster.cli(*adopt, other.name, check=False)
        self.assertNotEqual(0, gone.code, gone.text)

    def test_an_orphan_goes_into_the_quarantine_when_told(self):
        cluster = self.cluster
        image = cluster.put(b'copied by hand')
        shutil.copy(self.path('store-1', image), self.path('store-2', image))
        shutil.copy(self.record('store-1', image),
                    self.record('store-2', image))
        self.restart('store-2')
        wait_until('it is named', lambda: image in cluster.cli(
            'orphan', 'ls', check=False).text)
        rm = ('orphan', 'rm', 'store-2', image)
        self.assertEqual(cluster.cli(*rm, check=False).code, 2)
        dry = cluster.cli(*rm, '--dry-run')
        self.assertEqual(cluster.cli(*rm, '--yes', check=False).code, 2)
        other = cluster.cli(*rm, '--generation', 'none', '--yes', check=False)
        self.assertEqual(other.code, 5, other.err)
        self.assertIn(image, cluster.files('store-2'))
        refused = cluster.cli('orphan', 'adopt', 'store-2', image, check=False)
        self.assertEqual(refused.code, 5, refused.err)
        # As the dry run says.
        generation = dry.err.split(' --generation ')[1].split()[0]
        cluster.cli(*rm, '--generation', generation, '--yes')
        self.assertNotIn(image, cluster.files('store-2'))
        kept = os.listdir(os.path.join(cluster.paths['store-2'], '.predella',
                                       'quarantine'))
        self.assertEqual(len(kept), 2, kept)
        self.assertNotIn('ORPHANS', self.codes())
        # The image itself was not touched, and cannot be.
        self.assertEqual(
            cluster.cli('orphan', 'rm', 'store-1', image, '--generation',
                        generation, '--yes', check=False).code, 3)
        self.assertEqual(cluster.get(image), b'copied by hand')

    def test_an_empty_mount_that_had_images_is_an_alarm(self):
        cluster = self.cluster
        images = [cluster.put(b'image %d' % i) for i in range(12)]
        cluster.agents['store-1'].kill()
        aside = os.path.join(cluster.top, 'aside')
        os.mkdir(aside)
        for image in images:
            os.rename(self.path('store-1', image), os.path.join(aside, image))
        cluster.agents['store-1'].start()
        wait_until('it is an alarm',
                   lambda: 'INVENTORY_SUSPICIOUS' in self.codes())
        self.assertIn('lacks 12 of 12', self.detail('INVENTORY_SUSPICIOUS'))
        for image in images:
            self.assertTrue(os.path.exists(self.record('store-1', image)))
        cluster.agents['store-1'].kill()
        for image in images:
            os.rename(os.path.join(aside, image), self.path('store-1', image))
        cluster.agents['store-1'].start()
        cluster.wait_ready()
        wait_until('all is well', lambda: not self.codes())
        for i, image in enumerate(images):
            self.assertEqual(cluster.get(image), b'image %d' % i)

    def test_a_mount_that_comes_back_later_resurrects_nothing(self):
        cluster = self.cluster
        kept = cluster.put(b'kept')
        gone = cluster.put(b'deleted meanwhile')
        cluster.agents['store-1'].kill()
        wait_until('it is unreachable', lambda: self.mount(
            'store-1')['health'] != 'HEALTH_ONLINE', timeout=40)
        cluster.cli('image', 'rm', gone)
        cluster.agents['store-1'].start()
        cluster.wait_ready()
        wait_until('its file goes',
                   lambda: gone not in cluster.files('store-1'))
        self.assertEqual(
            cluster.cli('image', 'stat', gone, check=False).code, 3)
        self.assertEqual(cluster.get(kept), b'kept')
        self.assertEqual(int(self.mount('store-1').get('orphanCount', 0)), 0)


class RescanByDigestTest(ClusterTest):
    priorities = (100, 200)
    coordinator_args = ('--rescan-interval=10s',)

    def codes(self):
        status = self.cluster.cli('cluster', 'status', '-o', 'json',
                                  check=False).json
        return {check['code'] for check in status.get('checks', [])}

    def listings(self):
        return self.cluster.agents['store-1'].log().count(' mount_listed ')

    def wait_for_a_look(self):
        """One of store-1 that begins from here on, and ends."""
        agent = self.cluster.agents['store-1']
        before = agent.log().count(' mount_looked_through ')
        wait_until('it is looked through', lambda: agent.log().count(
            ' mount_looked_through ') > before, timeout=60)

    def test_a_listing_is_sent_when_something_was_done_to_it(self):
        cluster = self.cluster
        images = [cluster.put(b'image %d' % i) for i in range(3)]
        path = os.path.join(cluster.paths['store-1'], images[1])
        stranger = os.path.join(cluster.paths['store-1'], str(uuid.uuid4()))
        with open(stranger, 'wb') as f:
            f.write(b'whose is this')
        wait_until('it is named', lambda: 'ORPHANS' in self.codes(),
                   timeout=60)
        # What the index did itself, and what is known, needs none. (What is
        # done during a look might: there are 10 s until the next one.)
        self.wait_for_a_look()
        listings = self.listings()
        cluster.cli('image', 'rm', images[0])
        images.append(cluster.put(b'stored since'))
        for _ in range(2):
            self.wait_for_a_look()
        wait_until('it was as expected', lambda: ' by=digest ' in
                   cluster.coordinator.log())
        self.assertEqual(self.listings(), listings)
        self.assertEqual(self.codes(), {'ORPHANS'})
        aside = os.path.join(cluster.top, 'aside')
        os.rename(path, aside)
        wait_until('it is missed', lambda: 'COPIES_MISSING' in self.codes(),
                   timeout=60)
        self.assertEqual(self.listings(), listings + 1)
        self.wait_for_a_look()
        self.assertEqual(self.codes(), {'ORPHANS', 'COPIES_MISSING'})
        self.assertEqual(self.listings(), listings + 1)
        os.rename(aside, path)
        os.remove(stranger)
        wait_until('all is well', lambda: not self.codes(), timeout=60)
        self.assertEqual(cluster.get(images[1]), b'image 1')


if __name__ == '__main__':
    unittest.main()
