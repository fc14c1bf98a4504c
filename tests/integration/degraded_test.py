"""A mount goes away, and comes back, or does not: what is on it is named at
once, everything else goes on."""
import json
import os
import shutil
import signal
import threading
import unittest

from cluster import ClusterTest, random_bytes, wait_until

SIZE = 300_000


def names(images):
    return sorted(image['name'].split('/')[1] for image in images)


class DegradedTest(ClusterTest):
    # Of one space and one priority: images go round.
    priorities = (100, 100, 100)

    def setUp(self):
        super().setUp()
        self.bytes = {}
        self.on = {name: [] for name in self.cluster.paths}
        for seed in range(6):
            data = random_bytes(SIZE, seed)
            image = self.cluster.put(data)
            self.bytes[image] = data
            self.on[self.cluster.where(image)[0]].append(image)
        for images in self.on.values():
            self.assertEqual(len(images), 2, self.on)
            images.sort()

    def label(self, name):
        return os.path.join(self.cluster.paths[name], '.predella', 'mount.id')

    def listed(self, *args):
        return names(self.cluster.cli('image', 'ls', *args, '-o', 'json')
                     .json['images'])

    def check(self, code):
        status = self.cluster.cli('cluster', 'status', '-o', 'json',
                                  check=False).json
        for check in status['checks']:
            if check['code'] == code:
                return check
        return None

    def events(self, kind, mount='store-2'):
        return self.cluster.cli('events', '--kind', kind, '--mount', mount,
                                '-o', 'json').json['events']

    def follow(self):
        """Lines of `predella events --follow` as they come."""
        process = self.cluster.spawn_cli('events', '--follow', '-o', 'json')
        lines = []
        thread = threading.Thread(target=lambda: lines.extend(
            json.loads(line) for line in iter(process.stdout.readline, b'')))
        # extend() takes them one by one, as they come.
        thread.start()

        def stop():
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            thread.join(20)
            process.stdin.close()
            process.stdout.close()
            process.stderr.close()
        self.addCleanup(stop)
        return lines

    def test_a_mount_that_goes_away_and_comes_back(self):
        seen = self.follow()
        before = self.cluster.cli('mount', 'impact', 'store-2', 'store-3',
                                  '-o', 'json').json
        self.assertEqual(before['imageCount'], '4')
        self.assertEqual(before['onlyCopyCount'], '4')
        self.assertEqual(before['imageBytes'], str(4 * SIZE))
        self.assertEqual(names(before['images']),
                         sorted(self.on['store-2'] + self.on['store-3']))
        self.assertEqual(self.listed('--degraded'), [])

        os.rename(self.label('store-2'), self.label('store-2') + '.away')
        check = wait_until('MOUNT_ABSENT is said',
                           lambda: self.check('MOUNT_ABSENT'))
        self.assertEqual(check['mount'], 'mounts/store-2')
        self.assertEqual(check['affectedImageCount'], '2')
        self.assertEqual(check['severity'], 'CLUSTER_HEALTH_ERROR')
        self.assertIn('predella mount', check['nextStep'])
        # By name, exactly those, at once.
        self.assertEqual(self.listed('--degraded'), self.on['store-2'])
        self.assertEqual(self.listed('--degraded', '--mount', 'store-1'), [])
        self.assertEqual(self.listed('--lost'), [])
        lost = self.on['store-2'][0]
        stat = self.cluster.cli('image', 'stat', lost, '-o', 'json').json
        self.assertEqual(stat['health'], 'IMAGE_HEALTH_DEGRADED')
        self.assertEqual(stat['readableCopies'], 0)
        self.assertIn('mounts/store-2 is ABSENT', stat['healthDetail'])
        after = self.cluster.cli('mount', 'impact', 'store-2', 'store-3',
                                 '-o', 'json').json
        self.assertEqual(after, before)
        # The rest goes on.
        for name in ('store-1', 'store-3'):
            for image in self.on[name]:
                self.assert_same(self.cluster.get(image), self.bytes[image],
                                 name)
        fresh = self.cluster.put(random_bytes(SIZE, 77))
        self.assertNotEqual(self.cluster.where(fresh), ['store-2'])
        event = wait_until('the event is written',
                           lambda: self.events('mount_health_changed'))[0]
        self.assertIn('ONLINE -> ABSENT', event['detail'])
        self.assertEqual(event['affectedImageCount'], '2')
        wait_until('the event is streamed', lambda: [
            e for e in seen if e['id'] == event['id']])
        mount = self.cluster.cli('mount', 'stat', 'store-2', '-o', 'json').json
        self.assertEqual(mount['health'], 'HEALTH_ABSENT')
        self.assertTrue(mount['healthTime'])

        os.rename(self.label('store-2') + '.away', self.label('store-2'))
        self.cluster.wait_ready(timeout=60)
        self.assertEqual(self.listed('--degraded'), [])
        self.assertIsNone(self.check('MOUNT_ABSENT'))
        for image in self.on['store-2']:
            self.assert_same(self.cluster.get(image), self.bytes[image],
                             'after the return')
        wait_until('the return is written', lambda: 'ABSENT -> ONLINE' in
                   self.events('mount_health_changed')[0]['detail'])
        # The stream goes on over a restart of the coordinator.
        self.cluster.coordinator.kill(signal.SIGTERM)
        self.cluster.coordinator.start()
        self.cluster.wait_ready()
        self.cluster.cli('mount', 'cordon', 'store-3', '--reason', 'testing')
        wait_until('the stream goes on', lambda: [
            e for e in seen if e['kind'] == 'mount_cordoned'])
        ids = [e['id'] for e in seen]
        self.assertEqual(ids, sorted(set(ids)), 'once each, in order')

    def test_a_new_disk_takes_the_place_of_the_old_one(self):
        path = self.cluster.paths['store-2']
        agent = self.cluster.agents['store-2']
        agent.kill()
        old = path + '.old'
        shutil.move(path, old)
        os.mkdir(path)
        made = self.cluster.cli('mount', 'init', path, '--name', 'store-2').json
        agent.start()
        wait_until('the new label is refused',
                   lambda: self.check('MOUNT_IDENTITY_MISMATCH'))
        self.assertEqual(self.cluster.files('store-2'), [])
        # What is lost is shown by name before anybody accepts it.
        dry = self.cluster.cli('mount', 'replace', 'store-2', '--dry-run',
                               check=False)
        self.assertEqual(dry.code, 5, dry.err)
        for image in self.on['store-2']:
            self.assertIn(image, dry.text)
        self.assertIn('--accept-lost 2:', dry.err)
        shown = self.cluster.loss('replace', 'store-2')
        number = self.cluster.cli('mount', 'replace', 'store-2',
                                  '--accept-lost', '2', '--yes', check=False)
        self.assertEqual(number.code, 2)
        self.assertIn('--dry-run', number.err)
        wrong = self.cluster.cli('mount', 'replace', 'store-2', '--accept-lost',
                                 '2:' + '0' * 32, '--yes', check=False)
        self.assertEqual(wrong.code, 5)
        self.cluster.cli('mount', 'replace', 'store-2', '--accept-lost', shown,
                         '--yes', '--reason', 'sdb is dead')
        self.cluster.wait_ready(['store-2'], timeout=60)
        mount = self.cluster.cli('mount', 'stat', 'store-2', '-o', 'json').json
        self.assertEqual(mount['uid'], made.get('mountUid', mount['uid']))
        self.assertEqual(mount['imageCount'], '0')
        self.assertEqual(self.listed('--lost'), self.on['store-2'])
        self.assertTrue(self.check('IMAGES_LOST'))
        self.assertTrue(self.events('mount_replaced'))
        self.assertTrue(self.events('mount_identity_refused'))
        # A restart changes nothing of it, and the old disk stays outside.
        self.cluster.coordinator.kill()
        self.cluster.coordinator.start()
        self.cluster.wait_ready()
        agent.kill()
        shutil.move(path, path + '.new')
        shutil.move(old, path)
        agent.start()
        wait_until('the old disk is refused',
                   lambda: self.check('MOUNT_RETIRED'))
        self.assertEqual(self.listed('--lost'), self.on['store-2'])
        agent.kill()
        shutil.move(path, old)
        shutil.move(path + '.new', path)
        agent.start()
        self.cluster.wait_ready(['store-2'], timeout=60)
        image = self.cluster.put(random_bytes(SIZE, 99))
        self.assertTrue(self.cluster.get(image))

    def test_a_mount_that_is_given_up(self):
        self.cluster.agents['store-3'].kill()
        dry = self.cluster.cli('mount', 'retire', 'store-3', '--dry-run',
                               check=False)
        for image in self.on['store-3']:
            self.assertIn(image, dry.text)
        self.cluster.cli('mount', 'retire', 'store-3', '--accept-lost',
                         self.cluster.loss('retire', 'store-3'), '--yes')
        self.assertEqual(self.listed('--lost'), self.on['store-3'])
        self.assertEqual(self.listed('--degraded'), [])
        for image in self.on['store-3']:
            self.cluster.cli('image', 'rm', image)
        self.assertEqual(self.listed('--lost'), [])
        self.assertIsNone(self.check('IMAGES_LOST'))


if __name__ == '__main__':
    unittest.main()
