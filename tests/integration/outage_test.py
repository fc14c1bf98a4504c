"""The coordinator is away for 60 s in the middle of uploads and at their
commit: none fails."""
import threading
import time
import unittest

from cluster import MIB, ClusterTest, random_bytes, wait_until
from upload_faults_test import Upload

AWAY_SECONDS = 60
MOST_CLIENT_RSS = 96 * MIB  # 32 MiB of the upload, gRPC and the program


def resident(pid):
    with open(f'/proc/{pid}/status', encoding='ascii') as f:
        for line in f:
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) << 10
    return 0


class OutageTest(ClusterTest):
    priorities = (100, 200)

    def test_sixty_seconds_without_a_coordinator(self):
        data = random_bytes(80 * MIB, 60)
        uploads = {
            'unknown, middle': Upload(self.cluster),
            'known, middle': Upload(self.cluster, '--size', str(len(data))),
            'unknown, commit': Upload(self.cluster),
            'known, commit': Upload(self.cluster, '--size', str(len(data))),
        }
        results = {}
        for name, upload in uploads.items():
            upload.feed(data if 'commit' in name else data[:40 * MIB])
        wait_until('all four have arrived',
                   lambda: sum(len(self.cluster.inflight(m)) > 0
                               for m in self.cluster.paths) > 0)
        self.cluster.coordinator.kill()

        def finish(name):
            upload = uploads[name]
            if 'middle' in name:
                upload.feed(data[40 * MIB:])
            results[name] = upload.finish(timeout=AWAY_SECONDS + 60)
        threads = [threading.Thread(target=finish, args=(n,)) for n in uploads]
        for t in threads:
            t.start()
        began = time.monotonic()
        most = {name: 0 for name in uploads}
        while time.monotonic() - began < AWAY_SECONDS:
            for name, upload in uploads.items():
                self.assertIsNone(upload.process.poll(), name)
                most[name] = max(most[name], resident(upload.process.pid))
            time.sleep(1)
        self.cluster.coordinator.start()
        for t in threads:
            t.join()
        for name, (code, image) in results.items():
            self.assertEqual(code, 0, f'{name}: {uploads[name].err.decode()}')
            self.assert_same(self.cluster.get(image), data, name)
        for name, bytes_ in most.items():
            self.assertLess(bytes_, MOST_CLIENT_RSS, name)


if __name__ == '__main__':
    unittest.main(verbosity=2)
