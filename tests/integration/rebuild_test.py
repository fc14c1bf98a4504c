"""The whole state directory is lost; the index is made anew from the mounts."""
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import time
import unittest
import uuid

from cluster import (MIB, ClusterTest, binary, random_bytes, run, wait_until)


class RebuildTest(ClusterTest):
    priorities = (100, 100, 100)

    def codes(self):
        status = self.cluster.cli('cluster', 'status', '-o', 'json',
                                  check=False)
        return ([c['code'] for c in status.json.get('checks', [])]
                if status.out else ['none'])

    def wait_recovered(self, names=None):
        # One that is away is MOUNT_UNKNOWN for half a minute.
        wanted = {'RECOVERING', 'none'} | (set() if names
                                           else {'MOUNT_UNKNOWN'})
        wait_until('RECOVERING has ended',
                   lambda: not wanted & set(self.codes()), 60)
        self.cluster.wait_ready(names)

    def images(self):
        """All that is said of each image, as bytes."""
        listed = self.cluster.cli('image', 'ls', '-o', 'json').json
        ids = sorted(i['name'].split('/')[1] for i in listed['images'])
        return {i: self.said(i) for i in ids}

    def said(self, image):
        said = self.cluster.cli('image', 'stat', image, '-o', 'json').json
        # Good for ten minutes, and another at each call.
        for copy in said.get('copies', []):
            copy.pop('readCapability', None)
        return json.dumps(said, sort_keys=True)

    def stop_coordinator(self):
        self.cluster.coordinator.kill()

    def lose_everything(self):
        self.stop_coordinator()
        shutil.rmtree(self.cluster.state)

    def rebuild(self, *args, names=None, check=True):
        cluster = self.cluster
        paths = ','.join(cluster.paths[n] for n in (names or cluster.paths))
        result = run([binary('predella'), 'index', 'rebuild', '--state-dir',
                      cluster.state, '--datadirs', paths, *args])
        if check:
            self.assertEqual(result.code, 0, result.err)
        return result

    def fill(self, seed, count):
        rng = random.Random(seed)
        sizes = [0, 1, 4095, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]
        sizes += [rng.randrange(2 * MIB) for _ in range(count - len(sizes))]
        ids = []
        for i, size in enumerate(sizes):
            ids.append(self.cluster.put(random_bytes(size, seed + i), '--id',
                                        str(uuid.UUID(int=rng.getrandbits(128),
                                                      version=4))))
        return ids, sizes

    def test_everything_is_as_it_was(self):
        cluster = self.cluster
        seed = random.randrange(1 << 30)
        ids, sizes = self.fill(seed, 20)
        gone = [cluster.put(b'deleted') for _ in range(3)]
        for image in gone:
            cluster.cli('image', 'rm', image)
        before = self.images()
        self.assertEqual(len(before), 20, f'seed {seed}')
        self.assertEqual(self.rebuild(check=False).code, 5, 'it runs')
        self.lose_everything()

        dry = self.rebuild()
        self.assertIn('nothing was changed', dry.text)
        self.assertFalse(os.path.exists(cluster.state))
        said = self.rebuild('--yes')
        self.assertIn('3 deletes are remembered', said.text)
        self.assertEqual(sum(int(n) for n in self.counts(said.text)), 20)
        cluster.coordinator.start()
        self.wait_recovered()
        after = self.images()
        self.assertEqual(sorted(after), sorted(before), f'seed {seed}')
        for image, text in before.items():
            self.assertEqual(after[image], text, f'seed {seed}')
        for i, (image, size) in enumerate(zip(ids, sizes)):
            self.assert_same(cluster.get(image), random_bytes(size, seed + i),
                             image)
        for image in gone:
            self.assertEqual(
                cluster.cli('image', 'stat', image, check=False).code, 3)
        # It is a cluster that works.
        new = cluster.put(b'after the rebuild')
        self.assertEqual(cluster.get(new), b'after the rebuild')
        cluster.cli('image', 'rm', ids[0])
        wait_until('the file is removed', lambda: not any(
            ids[0] in cluster.files(name) for name in cluster.paths))
        print(f'\nrebuild: seed {seed}, {len(before)} images identical, '
              f'{len(gone)} deletes kept')

    @staticmethod
    def counts(text):
        return [line.split(': ')[1].split(' ')[0]
                for line in text.splitlines()
                if line.startswith('  store-') and ' images with ' in line]

    def test_a_mount_that_is_away_is_taken_in_by_command(self):
        cluster = self.cluster
        for name in ('store-1', 'store-2'):
            cluster.cli('mount', 'cordon', name)
        on_three = cluster.put(random_bytes(MIB + 5, 3))
        resurrected = cluster.put(b'deleted while its disk is away')
        for name in ('store-1', 'store-2'):
            cluster.cli('mount', 'uncordon', name)
        self.assertEqual(cluster.where(on_three), ['store-3'])
        before = self.said(on_three)
        wait_until('the rosters name all', lambda: all(
            b'store-3' in self.tombstone_file(n)
            for n in ('store-1', 'store-2')))
        cluster.agents['store-3'].kill()
        wait_until('it is gone', lambda: 'store-3' in [
            m.split('/')[1] for m in cluster.cli(
                'mount', 'ls', '-o', 'json').json.get('unreachable', [])])
        cluster.cli('image', 'rm', resurrected)
        self.lose_everything()
        said = self.rebuild('--yes', names=('store-1', 'store-2'))
        self.assertIn('store-3: not given', said.text)
        cluster.coordinator.start()
        self.wait_recovered(('store-1', 'store-2'))
        self.assertIn('MOUNT_UNCONFIRMED', self.codes())
        # Never said to be missing, and the rest works.
        self.assertEqual(
            cluster.cli('image', 'stat', on_three, check=False).code, 4)
        new = cluster.put(b'goes on')
        cluster.agents['store-3'].start()
        wait_until('it is there', lambda: cluster.cli(
            'mount', 'stat', 'store-3', '-o', 'json').json['health'] ==
            'HEALTH_ONLINE')
        self.assertEqual(
            cluster.cli('image', 'stat', on_three, check=False).code, 4)
        cluster.cli('mount', 'confirm', 'store-3', '--dry-run')
        self.assertIn('MOUNT_UNCONFIRMED', self.codes())
        cluster.cli('mount', 'confirm', 'store-3')
        self.wait_recovered()
        self.assertEqual(self.said(on_three), before)
        self.assertEqual(cluster.get(new), b'goes on')
        self.assertEqual(
            cluster.cli('image', 'stat', resurrected, check=False).code, 3)
        wait_until('its file is removed',
                   lambda: resurrected not in cluster.files('store-3'))
        self.assertNotIn('MOUNT_UNCONFIRMED', self.codes())

    def tombstone_file(self, name):
        with open(os.path.join(self.cluster.paths[name], '.predella',
                               'tombstones'), 'rb') as f:
            return f.read()

    def test_killed_in_the_middle_it_is_done_again(self):
        cluster = self.cluster
        ids, _ = self.fill(7, 8)
        before = self.images()
        self.stop_coordinator()
        argv = [binary('predella'), 'index', 'rebuild', '--state-dir',
                cluster.state, '--datadirs', ','.join(cluster.paths.values()),
                '--yes']
        started = time.monotonic()
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        whole = time.monotonic() - started
        kills = 0
        for i in range(12):
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            time.sleep(whole * (i + 1) / 13)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait(60)
        self.assertGreater(kills, 3)
        self.rebuild('--yes')
        aside = glob.glob(os.path.join(cluster.state, 'index.before-rebuild-*'))
        self.assertGreaterEqual(len(aside), 2)
        cluster.coordinator.start()
        self.wait_recovered()
        self.assertEqual(self.images(), before)
        self.assertEqual(len(ids), len(before))
        print(f'\nrebuild: killed {kills} of 12 times')

    def test_what_cannot_be_rebuilt_from_is_refused(self):
        cluster = self.cluster
        other = os.path.join(cluster.top, 'other')
        os.mkdir(other)
        self.stop_coordinator()
        cluster.paths['other'] = other
        refused = self.rebuild('--yes', check=False)
        self.assertEqual(refused.code, 5, refused.err)
        self.assertIn('bears no label', refused.err)
        run([binary('predella'), 'mount', 'init', other])
        fresh = self.rebuild('--yes', names=['other'], check=False)
        self.assertEqual(fresh.code, 5, fresh.err)
        self.assertIn('none of the directories', fresh.err)
        del cluster.paths['other']
        damaged = os.path.join(cluster.top, 'description')
        described = run([binary('predella-agent'), 'describe', '--path',
                         cluster.paths['store-1']])
        with open(damaged, 'wb') as f:
            f.write(described.out.replace(b'images', b'imagex'))
        refused = run([binary('predella'), 'index', 'rebuild', '--state-dir',
                       cluster.state, '--descriptions', damaged, '--yes'])
        self.assertEqual(refused.code, 2, refused.err)
        self.assertIn('damaged', refused.err)
        self.assertEqual(
            glob.glob(os.path.join(cluster.state, 'index.before-*')), [])
        cluster.coordinator.start()
        cluster.wait_ready()

    def test_other_hosts_send_descriptions(self):
        cluster = self.cluster
        ids, _ = self.fill(11, 8)
        before = self.images()
        files = []
        for name, path in cluster.paths.items():
            if name == 'store-1':
                continue
            files += ['--descriptions', os.path.join(cluster.top, name + '.d')]
            described = run([binary('predella-agent'), 'describe', '--path',
                             path])
            self.assertEqual(described.code, 0, described.err)
            with open(files[-1], 'wb') as f:
                f.write(described.out)
        self.lose_everything()
        self.rebuild(*files, '--yes', names=['store-1'])
        cluster.coordinator.start()
        self.wait_recovered()
        self.assertEqual(self.images(), before)
        self.assertEqual(len(before), len(ids))

    def restore(self, backup, *args):
        result = run([binary('predella'), 'index', 'restore', '--state-dir',
                      self.cluster.state, '--from', backup, *args])
        self.assertEqual(result.code, 0, result.err)
        return result.text

    def test_a_backup_is_put_back_and_what_came_since_is_taken_in(self):
        cluster = self.cluster
        self.fill(23, 8)
        gone = cluster.put(b'deleted after the backup')
        backup = cluster.cli('index', 'backup').text.split('  ')[0]
        listed = run([binary('predella'), 'index', 'backups', '--state-dir',
                      cluster.state])
        self.assertEqual(listed.text.split('  ')[0], backup)
        since = [cluster.put(random_bytes(MIB + i, i)) for i in range(4)]
        cluster.cli('image', 'rm', gone)
        before = self.images()
        self.assertEqual(len(before), 12)
        stale = os.path.join(cluster.top, 'stale')
        self.stop_coordinator()
        shutil.copytree(cluster.state, stale)
        cluster.coordinator.start()
        cluster.wait_ready()
        self.stop_coordinator()

        paths = ','.join(cluster.paths.values())
        dry = self.restore(backup, '--datadirs', paths)
        self.assertIn('nothing was changed', dry)
        self.assertNotIn('warning', dry)  # no delete of since is forgotten
        self.restore(backup, '--datadirs', paths, '--yes')
        cluster.coordinator.start()
        self.wait_recovered()
        self.assertEqual(self.images(), before)
        self.assertEqual(
            cluster.cli('image', 'stat', gone, check=False).code, 3)
        for i, image in enumerate(since):
            self.assert_same(cluster.get(image), random_bytes(MIB + i, i),
                             image)
        cluster.put(b'goes on')
        # The backup is what it was: put back once more, on a state directory
        # that has lost everything else.
        kept = os.path.join(cluster.top, 'kept')
        shutil.copytree(backup, kept)
        before = self.images()
        self.lose_everything()
        said = self.restore(kept, '--datadirs', paths, '--yes')
        self.assertIn('does not say when it was made', said)
        cluster.coordinator.start()
        self.wait_recovered()
        self.assertEqual(self.images(), before)
        # A copy of the directory is not one that was restored: refused.
        self.lose_everything()
        shutil.copytree(stale, cluster.state)
        cluster.coordinator.start()
        wait_until('it is refused', lambda: 'STALE_EPOCH' in self.codes())


if __name__ == '__main__':
    unittest.main()
