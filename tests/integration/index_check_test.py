"""The index against the directories while everything runs: `index check`, and
the listing that is made every --rescan-interval."""
import json
import os
import shutil
import unittest
import uuid

from cluster import ClusterTest, wait_until


class IndexCheckTest(ClusterTest):
    priorities = (100, 200)
    coordinator_args = ('--rescan-interval=0s',)

    def path(self, name, image):
        return os.path.join(self.cluster.paths[name], image)

    def record(self, name, image):
        return os.path.join(self.cluster.paths[name], '.predella', 'records',
                            image[:2], image)

    def check(self, *arguments):
        """Exit code, code -> [(mount, image, class)], summary."""
        result = self.cluster.cli('index', 'check', '-o', 'json', *arguments,
                                  check=False)
        lines = [json.loads(line) for line in result.text.splitlines()]
        self.assertTrue(lines, result.err)
        found = {}
        for line in lines[:-1]:
            self.assertTrue(line['detail'] and line['nextStep'], line)
            found.setdefault(line['code'], []).append(
                (line['mount'].removeprefix('mounts/'),
                 line['image'].removeprefix('images/'), line['findingClass']))
        return result.code, found, lines[-1]['summary']

    def test_each_class_is_named_and_nothing_is_repaired(self):
        cluster = self.cluster
        images = [cluster.put(b'image %d' % i) for i in range(4)]
        gone, cut, copied, whole = images
        code, found, summary = self.check()
        self.assertEqual((code, found), (0, {}))
        self.assertEqual(sorted(summary['compared']), ['store-1', 'store-2'])
        os.remove(self.path('store-1', gone))
        os.truncate(self.path('store-1', cut), 3)
        shutil.copy(self.path('store-1', copied), self.path('store-2', copied))
        shutil.copy(self.record('store-1', copied),
                    self.record('store-2', copied))
        stranger = str(uuid.uuid4())
        with open(self.path('store-2', stranger), 'wb') as f:
            f.write(b'whose is this')
        code, found, summary = self.check('--index-only')
        self.assertEqual((code, found), (0, {}))
        self.assertEqual(summary['compared'], [])
        code, found, summary = self.check()
        self.assertEqual(code, 6)
        self.assertEqual(found, {
            'COPY_MISSING': [('store-1', gone, 'FINDING_CLASS_FATAL')],
            'COPY_DAMAGED': [('store-1', cut, 'FINDING_CLASS_FATAL')],
            'COPY_UNKNOWN': [
                ('store-2', copied, 'FINDING_CLASS_ERROR_REPAIRABLE')],
            'FILE_WITHOUT_RECORD': [
                ('store-2', stranger, 'FINDING_CLASS_ERROR_REPAIRABLE')]})
        self.assertEqual(summary['fatal'], 2)
        self.assertEqual(cluster.get(whole), b'image 3')
        self.assertTrue(os.path.exists(self.path('store-2', copied)))
        # What the next steps say helps.
        cluster.cli('image', 'rm', cut)
        cluster.cli('image', 'rm', gone)
        for image in (copied, stranger):
            rm = ('orphan', 'rm', 'store-2', image)
            dry = cluster.cli(*rm, '--dry-run').err
            generation = dry.split(' --generation ')[1].split()[0]
            cluster.cli(*rm, '--generation', generation, '--yes')
        self.assertEqual(self.check()[:2], (0, {}))
        table = cluster.cli('index', 'check').text
        self.assertIn('0 findings', table)
        self.assertIn('compared with store-', table)

    def test_a_mount_that_is_away_is_named(self):
        cluster = self.cluster
        cluster.put(b'left alone')
        cluster.agents['store-2'].kill()
        code, found, summary = self.check()
        self.assertEqual(code, 6)
        self.assertEqual(found, {'MOUNT_NOT_COMPARED': [
            ('store-2', '', 'FINDING_CLASS_ERROR_REPAIRABLE')]})
        self.assertEqual(summary['compared'], ['store-1'])
        cluster.agents['store-2'].start()
        cluster.wait_ready()
        wait_until('all is compared', lambda: self.check()[0] == 0)


class RescanTest(ClusterTest):
    priorities = (100, 200)
    coordinator_args = ('--rescan-interval=10s',)

    def codes(self):
        status = self.cluster.cli('cluster', 'status', '-o', 'json',
                                  check=False).json
        return {check['code'] for check in status.get('checks', [])}

    def test_what_changes_under_running_agents_is_noticed(self):
        cluster = self.cluster
        image = cluster.put(b'taken away')
        path = os.path.join(cluster.paths['store-1'], image)
        aside = os.path.join(cluster.top, 'aside')
        stranger = os.path.join(cluster.paths['store-2'], str(uuid.uuid4()))
        os.rename(path, aside)
        with open(stranger, 'wb') as f:
            f.write(b'whose is this')
        wait_until('both are named', lambda: {'COPIES_MISSING', 'ORPHANS'} <=
                   self.codes(), timeout=60)
        os.rename(aside, path)
        os.remove(stranger)
        wait_until('all is well', lambda: not self.codes(), timeout=60)
        self.assertEqual(cluster.get(image), b'taken away')


if __name__ == '__main__':
    unittest.main()
