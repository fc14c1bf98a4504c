"""Scrubs over real files, in the default configuration: what lies there
damaged is found by name, and nothing else is."""
import os
import random
import re
import shutil
import time
import unittest

from cluster import MIB, ClusterTest, random_bytes, wait_until

EXIT_UNHEALTHY = 6


class ScrubCase(ClusterTest):
    seed = 20261128

    def setUp(self):
        super().setUp()
        self.random = random.Random(self.seed)

    def put_many(self, count, largest=2 * MIB):
        """Ids of images of all sizes, and the path of each."""
        images = {}
        for i in range(count):
            size = self.random.choice(
                (1, 4096, MIB - 1, MIB, self.random.randrange(1, largest)))
            image = self.cluster.put(random_bytes(size, i))
            (mount,) = self.cluster.where(image)
            images[image] = os.path.join(self.cluster.paths[mount], image)
        return images

    def flip(self, path):
        """One bit, and the times stay: nothing but the bytes tells."""
        info = os.stat(path)
        offset = self.random.randrange(info.st_size)
        with open(path, 'r+b') as f:
            f.seek(offset)
            byte = f.read(1)[0]
            f.seek(offset)
            f.write(bytes([byte ^ (1 << self.random.randrange(8))]))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    def record(self, path):
        top, image = os.path.split(path)
        return os.path.join(top, '.predella', 'records', image[:2], image)

    def found(self):
        """Every finding that was written down, in its order."""
        return re.findall(r'copy_(?:damaged|missing)\W.*?image\W+([0-9a-f-]{36})',
                          self.cluster.coordinator.log())

    def scrub(self, name):
        return self.cluster.cli('mount', 'stat', name, '-o', 'json'
                                ).json.get('scrub', {})

    def scrub_all(self):
        codes = {}
        for name in self.cluster.agents:
            result = self.cluster.cli('mount', 'scrub', name, '--wait',
                                      check=False, timeout=200)
            codes[name] = result.code
            if result.code not in (0, EXIT_UNHEALTHY):
                self.fail(f'scrub {name}: exit {result.code}: {result.err}')
        return codes


class OlderVersionTest(ScrubCase):
    priorities = (100,)

    def test_an_older_version_put_back_is_told_at_once(self):
        # Not by the listing after the start.
        wait_until('the mount was listed', lambda: not self.cluster.cli(
            'orphan', 'ls', '-o', 'json').json.get('unlisted'))
        image = self.cluster.put(random_bytes(MIB, 1))
        path = os.path.join(self.cluster.paths['store-1'], image)
        files = (path, self.record(path))
        for i, file in enumerate(files):
            shutil.copy2(file, f'{self.cluster.top}/{i}')
        self.cluster.cli('image', 'rm', image)
        wait_until('the file is removed', lambda: not os.path.exists(path))
        self.cluster.cli('image', 'put', '-', '--id', image,
                         data=random_bytes(MIB, 2))
        for i, file in enumerate(files):
            shutil.copy2(f'{self.cluster.top}/{i}', file)
        for fault in ('COPY_FAULT_UNSPECIFIED', 'COPY_FAULT_MISSING'):
            # Also once it is known.
            self.assertEqual(self.copy(image)['fault'], fault)
            begun = time.monotonic()
            read = self.cluster.cli('image', 'get', image, check=False,
                                    timeout=100)
            self.assertNotEqual(read.code, 0)
            self.assertIn('REPLICA_MISSING', read.err)
            self.assertLess(time.monotonic() - begun, 20)
            wait_until('the copy is told to be missing',
                       lambda: self.copy(image)['fault'] ==
                       'COPY_FAULT_MISSING')
        # The id may have digits at such places, too.
        generations = re.findall(r'\b[0-9]+-[0-9]+-[0-9a-f]{8}\b',
                                 self.copy(image)['faultDetail'])
        self.assertEqual(len(set(generations)), 2)

    def copy(self, image):
        (copy,) = self.cluster.cli('image', 'stat', image, '-o', 'json'
                                   ).json['copies']
        return copy


class ScrubTest(ScrubCase):
    priorities = (100, 100, 100)

    def test_sixty_silent_flips_are_found_and_nothing_else(self):
        images = self.put_many(75)
        self.assertEqual(set(self.scrub_all().values()), {0})
        self.assertEqual(self.found(), [])
        flipped = self.random.sample(sorted(images), 60)
        for image in flipped:
            self.flip(images[image])
        self.assertEqual(set(self.scrub_all().values()), {EXIT_UNHEALTHY})
        self.assertEqual(sorted(self.found()), sorted(flipped),
                         f'seed {self.seed}')
        total = sum(int(self.scrub(name)['faultCount'])
                    for name in self.cluster.agents)
        self.assertEqual(total, 60)
        counted = sum(int(self.scrub(name)['imageCount'])
                      for name in self.cluster.agents)
        self.assertEqual(counted, 75)
        again = random.Random(self.seed + 1).choice(flipped)
        whole = sorted(set(images) - set(flipped))[0]
        self.assertIn('CHECKSUM_MISMATCH',
                      self.cluster.cli('image', 'get', again,
                                       check=False).err)
        self.assertTrue(self.cluster.get(whole))
        print(f'60 flips over 3 mounts (seed {self.seed}): '
              f'{len(self.found())} found, 0 false alarms')

    def test_what_is_cut_longer_swapped_or_gone_is_found(self):
        images = self.put_many(30)
        by_mount = {}
        for image, path in images.items():
            by_mount.setdefault(os.path.dirname(path), []).append(image)
        for of in by_mount.values():
            self.assertGreaterEqual(len(of), 6)
        damaged = []
        for of in by_mount.values():
            cut, longer, one, two, gone, record = of[:6]
            damaged += of[:6]
            os.truncate(images[cut], os.path.getsize(images[cut]) - 1)
            with open(images[longer], 'ab') as f:
                f.write(b'x')
            os.rename(images[one], images[one] + '.x')
            os.rename(images[two], images[one])
            os.rename(images[one] + '.x', images[two])
            os.unlink(images[gone])
            self.flip_header(self.record(images[record]))
        self.assertEqual(set(self.scrub_all().values()), {EXIT_UNHEALTHY})
        self.assertEqual(sorted(self.found()), sorted(damaged))

    def flip_header(self, path):
        with open(path, 'r+b') as f:
            f.seek(20)
            byte = f.read(1)[0]
            f.seek(20)
            f.write(bytes([byte ^ 1]))


class ScrubInterruptedTest(ScrubCase):
    priorities = (100,)

    def test_it_goes_on_after_every_interruption(self):
        cluster = self.cluster
        images = {}
        for i in range(24):
            image = cluster.put(random_bytes(2 * MIB, i))
            images[image] = os.path.join(cluster.paths['store-1'], image)
        flipped = self.random.sample(sorted(images), 10)
        for image in flipped:
            self.flip(images[image])
        cluster.cli('mount', 'scrub', 'store-1', '--rate', '2MiB')

        def read(at_least):
            wait_until(f'{at_least} images are read', lambda: int(
                self.scrub('store-1').get('imageCount', 0)) >= at_least, 60)
        read(3)
        out = cluster.cli('mount', 'scrub', 'store-1', '--pause').text
        self.assertIn('PAUSED', out)
        paused = int(self.scrub('store-1')['imageCount'])
        out = cluster.cli('mount', 'scrub').text
        self.assertRegex(out, r'store-1\s+PAUSED')
        self.assertEqual(int(self.scrub('store-1')['imageCount']), paused)
        cluster.cli('mount', 'scrub', 'store-1')
        read(paused + 3)

        agent = cluster.agents['store-1']
        agent.kill()
        agent.start()
        before = int(self.scrub('store-1')['imageCount'])
        read(before + 3)

        cluster.coordinator.kill()
        cluster.coordinator.start()
        # For what the pass has found so far, until it has finished.
        wait_until('the mount is SUSPECT again', lambda: cluster.cli(
            'mount', 'stat', 'store-1', '-o', 'json', check=False
            ).out.count(b'HEALTH_SUSPECT') > 0)
        self.assertEqual(self.scrub('store-1')['state'], 'SCRUB_STATE_RUNNING')
        result = cluster.cli('mount', 'scrub', 'store-1', '--rate', '500MiB',
                             '--wait', check=False)
        self.assertEqual(result.code, EXIT_UNHEALTHY, result.err)
        scrub = self.scrub('store-1')
        self.assertEqual(scrub['state'], 'SCRUB_STATE_DONE')
        self.assertEqual(int(scrub['imageCount']), 24)
        self.assertEqual(int(scrub['faultCount']), 10)
        self.assertEqual(sorted(self.found()), sorted(flipped))

    def test_a_mount_that_showed_damage_is_scrubbed_before_it_takes_images(
            self):
        cluster = self.cluster
        images = self.put_many(8)
        bad, silent = sorted(images)[:2]
        self.flip(images[bad])
        self.flip(images[silent])
        self.assertNotEqual(
            cluster.cli('image', 'get', bad, check=False).code, 0)
        wait_until('the read told it', lambda: bad in self.found())

        def mount():
            return cluster.cli('mount', 'stat', 'store-1', '-o', 'json').json
        wait_until('it is SUSPECT',
                   lambda: mount()['health'] == 'HEALTH_SUSPECT')
        wait_until('a scrub is required',
                   lambda: mount().get('scrub', {}).get('required'))
        # Nobody asks for it, and nothing is started again.
        wait_until('it is ONLINE again',
                   lambda: mount()['health'] == 'HEALTH_ONLINE', 90)
        self.assertFalse(mount()['scrub'].get('required'))
        self.assertEqual(mount()['scrub']['state'], 'SCRUB_STATE_DONE')
        self.assertEqual(sorted(self.found()), sorted([bad, silent]))
        self.assertEqual(len(cluster.put(b'again')), 36)


if __name__ == '__main__':
    unittest.main()
