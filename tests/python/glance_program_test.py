"""What predella-glance makes of the program's answers."""
import io
import json
import os
import shutil
import tempfile
import unittest

import environment  # noqa: F401

from glance_store_predella import cluster as clusters


class ProgramTest(unittest.TestCase):
    """What the program complains of, as predella-glance says it."""

    def program(self, complaint):
        path = os.path.join(tempfile.mkdtemp(), 'predella')
        self.addCleanup(shutil.rmtree, os.path.dirname(path))
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write(f'#!/bin/sh\necho "{complaint}" >&2\nexit 3\n')
        os.chmod(path, 0o755)
        return clusters.Cluster(program=path)

    def test_an_error_is_one_error(self):
        program = self.program('error: there is no mounts/nosuch')
        for ask in (program.mounts, program.images, program.uid,
                    program.list_again,
                    lambda: program.impact(['nosuch'])):
            with self.assertRaises(clusters.Failed) as caught:
                ask()
            self.assertEqual('there is no mounts/nosuch',
                             str(caught.exception))

    def test_what_is_not_taken_in_has_no_copies_to_see(self):
        for hint, kept in (('predella image stat ID shows the mounts', ''),
                           ('predella doctor says', '\nhint: predella doctor '
                            'says')):
            program = self.program(f'error: the md5 is another\nhint: {hint}')
            self.assertEqual(f'the md5 is another{kept}', program.adopt(
                'a', 'id', '/a/id', 3, {}))


class ListTest(unittest.TestCase):
    def test_a_list_is_taken_apart_as_it_comes(self):
        rows = [{'name': f'images/{i}', 'x': '{"],' * i} for i in range(50)]
        for indent in (None, 1):
            text = json.dumps({'images': rows, 'unreachable': ['x']},
                              indent=indent)
            stream = io.StringIO(text)
            stream.read = lambda _, read=stream.read: read(7)
            self.assertEqual(rows, list(clusters.elements(stream, 'images')))
        self.assertEqual([], list(clusters.elements(
            io.StringIO('{"images": []}'), 'images')))
        for text in ('', '{"images": [{"a": 1}', '{"mounts": []}'):
            with self.assertRaises(ValueError):
                list(clusters.elements(io.StringIO(text), 'images'))


if __name__ == '__main__':
    unittest.main()
