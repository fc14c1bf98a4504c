"""Installs what was built, and builds and runs client/examples against it, as
a program of somebody else's would: find_package(Predella)."""
import os
import subprocess
import tempfile
import unittest
import uuid

from cluster import BIN, ClusterTest, run

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')


class ConsumerTest(ClusterTest):
    priorities = (100,)

    def test_the_example_builds_and_round_trips(self):
        with tempfile.TemporaryDirectory() as work:
            prefix = os.path.join(work, 'prefix')
            for command in (
                    ['cmake', '--install', os.path.join(BIN, '..'),
                     '--prefix', prefix],
                    ['cmake', '-S', os.path.join(SOURCE, 'client/examples'),
                     '-B', f'{work}/build', '-G', 'Ninja',
                     f'-DCMAKE_PREFIX_PATH={prefix}'],
                    ['cmake', '--build', f'{work}/build']):
                done = subprocess.run(command, capture_output=True, text=True,
                                      check=False)
                self.assertEqual(done.returncode, 0,
                                 f'{command}: {done.stdout} {done.stderr}')
            image = str(uuid.uuid4())
            result = run([f'{work}/build/round_trip', self.cluster.endpoint,
                          image])
            self.assertEqual(result.code, 0, result.err)
            self.assertEqual(result.text,
                             f'images/{image}: a small panel\n')


if __name__ == '__main__':
    unittest.main(verbosity=2)
