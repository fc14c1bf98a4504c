"""predella glance datadirs: the directories of Glance's own store."""
import os
import unittest

import environment  # noqa: F401

from glance_store_predella import datadirs
from glance_store_predella.cluster import Failed
from tool_case import ToolCase


class DatadirsTest(ToolCase):
    def test_priorities_are_turned_round(self):
        path = os.path.join(self.top, 'conf')
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write('''
[other]
filesystem_store_datadirs = /no:1
filesystem_thin_provisioning = True
[old]
# filesystem_store_datadirs = /commented:1
filesystem_store_datadirs = /a:200
filesystem_store_datadirs=/b:200
filesystem_store_datadir =
filesystem_store_datadirs = /c:d:100
filesystem_store_datadirs = /e
''')
        code, out, err = self.run_tool('datadirs', '--config', path,
                                       '--store', 'old')
        self.assertEqual(0, code, err)
        self.assertEqual('/a:100,/b:100,/c:d:200,/e:300\n', out)
        self.assertRegex(err, '/a +200 +100')
        self.assertNotIn('--thin', err)
        self.assertEqual(1, self.run_tool('datadirs', '--config', path)[0])

    def test_thin_provisioning_is_an_option_of_the_agents(self):
        path = os.path.join(self.top, 'conf')
        for value, thin in (('True', True), ('on', True), ('false', False)):
            with open(path, 'w', encoding='utf-8') as stream:
                stream.write('[old]\nfilesystem_store_datadirs = /a:200\n'
                             f'filesystem_thin_provisioning = {value}\n')
            code, _, err = self.run_tool('datadirs', '--config', path,
                                         '--store', 'old')
            self.assertEqual(0, code, err)
            self.assertEqual(thin, '--thin' in err, value)

    def write_conf(self, text):
        path = os.path.join(self.top, 'conf')
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write(text)
        return path

    def test_one_directory_is_a_configuration_as_well(self):
        for text, out in (
                ('[glance_store]\nfilesystem_store_datadir = /a\n', '/a:100'),
                ('[DEFAULT]\nenabled_backends = x:rbd, old:file\n[old]\n'
                 'filesystem_store_datadir=/b/\n', '/b/:100'),
                # Set to nothing beside the others, as multi-store wants it.
                ('[glance_store]\nfilesystem_store_datadir =\n'
                 'filesystem_store_datadirs = /c:1\n', '/c:100'),
                ('[glance_store]\ndefault_store = file\n',
                 '/var/lib/glance/images:100')):
            code, said, err = self.run_tool('datadirs', '--config',
                                            self.write_conf(text))
            self.assertEqual((0, f'{out}\n'), (code, said), err)
        self.assertIn("Glance's default", err)

    def test_a_store_that_nobody_can_choose(self):
        for text, why in (
                ('[glance_store]\nfilesystem_store_datadir = /a\n'
                 'filesystem_store_datadirs = /b\n', 'Glance refuses'),
                ('[DEFAULT]\nenabled_backends = x:file, y:file\n',
                 '2 stores of type file: x, y'),
                ('[DEFAULT]\nenabled_backends = x:rbd\n',
                 '0 stores of type file'),
                ('[glance_store]\nfilesystem_store_datadir =\n',
                 'neither filesystem_store_datadir nor'),
                ('[old]\n', 'no section .glance_store.')):
            code, _, err = self.run_tool('datadirs', '--config',
                                         self.write_conf(text))
            self.assertEqual(1, code)
            self.assertRegex(err, why)

    def test_a_priority_that_is_none(self):
        with self.assertRaisesRegex(Failed, '/a:x'):
            datadirs.parse(['/a:x'])
        self.assertEqual([('/a', 0)], datadirs.parse(['/a:']))


if __name__ == '__main__':
    unittest.main()
