"""--thin on an NFS export: holes there are the server's, and the bytes are the
same for a client that mounted anew."""
import os
import unittest

from cluster import MIB, digest, random_bytes
from nfs_case import NfsTest


def sparse(seed):
    data = bytearray(24 * MIB)
    data[:1000] = random_bytes(1000, seed)
    at = 9 * MIB + 4321
    data[at:at + 2 * MIB] = random_bytes(2 * MIB, seed + 1)
    return bytes(data)


class ThinTest(NfsTest):
    def test_holes(self):
        mount = self.mount(mib=64)
        self.start(mount, agent_args=('--thin',))
        # More than the export would hold of their bytes.
        for seed in (10, 20, 30, 40):
            data = sparse(seed)
            size = ('--size', str(len(data))) if seed > 20 else ()
            image = self.cluster.put(data, *size)
            self.stored[image] = digest(data)
            found = os.stat(os.path.join(mount.path, image))
            self.assertEqual(len(data), found.st_size)
            self.assertLess(found.st_blocks * 512, 3 * MIB)
        self.check_stored()
        self.remount([mount])
        self.check_stored()


if __name__ == '__main__':
    unittest.main()
