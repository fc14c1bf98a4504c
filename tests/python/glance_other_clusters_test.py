"""relocate and audit of a Glance that has stores of several clusters."""
import os
import unittest
import uuid

import environment  # noqa: F401

from glance_store_predella import plans
from glance_store_predella.cluster import Failed
from tool_case import FilesCase
from tool_case import KEY
from tool_case import LONG_AGO

OTHER_KEY = 'f' * 32
CONF = '''
[DEFAULT]
enabled_backends = fast:predella, second:predella, old:file
[fast]
predella_endpoint = unix:/c
[second]
predella_endpoint = unix:/h
[old]
filesystem_store_datadir = OLD
'''


class Other:
    def __init__(self, uid):
        self._uid = uid

    def uid(self):
        if self._uid is None:
            raise Failed('the coordinator at unix:/h does not answer')
        return self._uid


class OtherClustersTest(FilesCase):
    def setUp(self):
        super().setUp()
        self.conf = os.path.join(self.top, 'conf')
        with open(self.conf, 'w', encoding='utf-8') as stream:
            stream.write(CONF.replace('OLD', self.paths['old']))
        self.clusters['unix:/h'] = Other('another one')

    def of_second(self, image=None):
        """An image that has a row of the other cluster's store."""
        if image is not None:
            self.add_row(image, f'predella://second/{image}/{OTHER_KEY}',
                         'second')
            return image
        return self.image(f'predella://second/ID/{OTHER_KEY}',
                          meta='{"store": "second"}')

    def plan(self, *more, store='fast', config=True):
        path = os.path.join(self.top, f'plan-{uuid.uuid4()}')
        code, _, err = self.run_tool(
            'relocate', '--store', store, '--plan', path, '--database',
            self.url, *(('--config', self.conf) if config else ()), *more)
        self.assertEqual(0, code, err)
        return [(one['image'], one['new']) for one in
                plans.read_plan(path)], err

    def in_both(self):
        image = self.image(f'predella://fast/ID/{KEY}',
                           meta='{"store": "fast"}')
        self.cluster.add(image, 'a')
        return self.of_second(image)

    def test_audit_names_them_apart(self):
        alone, both = self.of_second(), self.in_both()
        # Without metadata the location says the store.
        self.image(f'predella://second/ID/{OTHER_KEY}', meta=None)
        code, out, err = self.run_tool('audit', '--database', self.url,
                                       '--config', self.conf)
        self.assertEqual((0, ''), (code, out), err)
        self.assertIn('note: 3 images have a row of store second, which is of '
                      'another cluster: --endpoint unix:/h asks', err)
        # Nothing says so without the configuration, but the store is named.
        code, out, err = self.run_tool('audit', '--database', self.url)
        self.assertEqual(6, code)
        self.assertRegex(out, f'{alone} .* no such image here, of store second')
        self.assertRegex(out, f'{both} .* other data here, of store second')
        self.assertIn('only with --config FILE', err)

    def test_a_row_of_this_cluster_whose_data_is_gone_is_none_of_them(self):
        gone = self.image(f'predella://fast/ID/{KEY}',
                          meta='{"store": "fast"}')
        self.of_second()
        code, out, _ = self.run_tool('audit', '--database', self.url,
                                     '--config', self.conf)
        self.assertEqual(6, code)
        self.assertRegex(out, f'{gone} .* no such image here, of store fast')
        self.assertNotIn('store second', out)

    def test_data_here_is_a_leak_whatever_the_other_cluster_has(self):
        image = self.of_second()
        self.cluster.add(image, 'a')
        code, out, _ = self.run_tool('audit', '--database', self.url,
                                     '--config', self.conf)
        self.assertEqual(6, code)
        self.assertIn(image, out)

    def test_a_store_that_can_not_be_asked_or_is_of_this_cluster(self):
        self.of_second()
        for uid, said in ((None, 'store second was not asked which cluster it '
                           'is of, .* does not answer'),
                          ('this one', 'rows of Glance whose data is not')):
            self.clusters['unix:/h'] = Other(uid)
            code, _, err = self.run_tool('audit', '--database', self.url,
                                         '--config', self.conf)
            self.assertEqual(6, code)
            self.assertRegex(err, said)

    def test_a_store_that_glance_does_not_have_is_said(self):
        for store, more, said in (
                ('fast', (), None), ('nosuch', (), 'nosuch of type predella'),
                ('old', (), 'old of type predella'),
                ('old', ('--to-file',), None),
                ('fast', ('--to-file',), 'fast of type file')):
            _, err = self.plan(*more, store=store)
            if said is None:
                self.assertNotIn('warning', err)
            else:
                self.assertIn(f'has no store {said}', err)

    def test_no_row_is_given_to_a_store_that_can_not_be_asked(self):
        image, _ = self.located('a')
        self.write('a', image, age=LONG_AGO)
        self.cluster.add(image, 'a')
        self.clusters['unix:/h'] = Other(None)
        path = os.path.join(self.top, 'plan-second')
        code, _, err = self.run_tool(
            'relocate', '--store', 'second', '--plan', path, '--database',
            self.url, '--config', self.conf)
        self.assertEqual(1, code, err)
        self.assertIn('store second can not be asked which cluster', err)
        self.assertFalse(os.path.exists(path))

    def test_a_store_whose_rows_are_all_here_need_not_be_asked(self):
        """As the only store of a Glance in a container, by its path there."""
        image = self.image(f'predella://second/ID/{KEY}',
                           meta='{"store": "second"}')
        self.cluster.add(image, 'a')
        self.clusters['unix:/h'] = Other(None)
        code, _, err = self.run_tool('audit', '--database', self.url,
                                     '--config', self.conf)
        self.assertEqual(0, code)
        self.assertNotIn('was not asked', err)

    def test_in_with_a_copy_in_the_other_cluster(self):
        image, path = self.located('a')
        self.write('a', image, age=LONG_AGO)
        self.of_second(image)
        self.cluster.add(image, 'a')
        changes, err = self.plan()
        self.assertEqual([(image, f'predella://fast/{image}/{KEY}')], changes)
        self.assertIn('1 rows to change, 0 left', err)
        changes, err = self.plan(config=False)
        self.assertEqual([], changes)
        self.assertRegex(err, f'{image}: its predella:// location in store '
                         'second .*: --config FILE')

    def test_out_with_a_copy_in_the_other_cluster(self):
        both, alone = self.in_both(), self.of_second()
        out = [(both, f'file://{self.paths["a"]}/{both}')]
        changes, err = self.plan('--to-file', store='old')
        self.assertEqual(out, changes)
        self.assertIn('note: 2 images have a row of store second', err)
        self.assertIn('1 rows to change, 0 left', err)
        changes, err = self.plan('--to-file', store='old', config=False)
        self.assertEqual(out, changes)
        for image in (both, alone):
            self.assertRegex(err, f'left as it is: {image}: this cluster has '
                             'no such image as its row of store second names')

    def test_rows_are_not_given_to_a_store_of_the_other_cluster(self):
        path = os.path.join(self.top, 'plan')
        code, _, err = self.run_tool(
            'relocate', '--store', 'second', '--plan', path, '--database',
            self.url, '--config', self.conf)
        self.assertEqual(1, code)
        self.assertIn('store second is of another cluster', err)
        self.assertIn('--endpoint unix:/h', err)
        self.assertFalse(os.path.exists(path))

    def test_the_endpoint_of_all_stores(self):
        with open(self.conf, 'w', encoding='utf-8') as stream:
            stream.write('[DEFAULT]\nenabled_backends = second:predella\n'
                         '[backend_defaults]\npredella_endpoint = unix:/h\n'
                         '[second]\n')
        self.of_second()
        code, _, err = self.run_tool('audit', '--database', self.url,
                                     '--config', self.conf)
        self.assertEqual(0, code, err)


if __name__ == '__main__':
    unittest.main()
