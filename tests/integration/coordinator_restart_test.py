"""A coordinator that is killed and starts again costs no upload: again and
again in the middle of eight streams, and at their commits; how long it does not
answer (reliability.md G22).

PREDELLA_RESTARTS is how many (8); PREDELLA_RESTART_SEED draws when.
"""
import os
import random
import threading
import time
import unittest

from cluster import MIB, ClusterTest, random_bytes, wait_until
from upload_faults_test import Upload

RESTARTS = int(os.environ.get('PREDELLA_RESTARTS', '8'))
SEED = int(os.environ.get('PREDELLA_RESTART_SEED') or
           random.SystemRandom().randrange(1 << 32))
STREAMS = 8
SIZE = 4 * MIB
PIECE = 128 << 10
MOST_AWAY = 1.0


class Stream(threading.Thread):
    """Uploads one image after the other, slowly, until it is told to end."""

    def __init__(self, cluster, number):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.rng = random.Random(f'{SEED} {number}')
        self.ending = False
        self.stored = {}  # image -> data
        self.wrong = []

    def run(self):
        while not self.ending:
            data = random_bytes(SIZE + self.rng.randrange(MIB),
                                self.rng.getrandbits(32))
            known = self.rng.random() < 0.5
            upload = Upload(self.cluster,
                            *(('--size', str(len(data))) if known else ()))
            for at in range(0, len(data), PIECE):
                upload.feed(data[at:at + PIECE])
                time.sleep(0.01)
            code, image = upload.finish(timeout=120)
            if code != 0:
                self.wrong.append(upload.err.decode())
            else:
                self.stored[image] = data


class CoordinatorRestartTest(ClusterTest):
    priorities = (100, 100, 200)

    def test_no_upload_fails(self):
        print(f'PREDELLA_RESTART_SEED={SEED}')
        rng = random.Random(SEED)
        cluster = self.cluster
        seen = cluster.put(b'asked for all the time')
        streams = [Stream(cluster, i) for i in range(STREAMS)]
        for stream in streams:
            stream.start()
        away = []
        for _ in range(RESTARTS):
            # Longer than the last start took: streams go on in between.
            time.sleep(0.5 + rng.random())
            cluster.coordinator.kill()
            since = time.monotonic()
            cluster.coordinator.start()
            wait_until(f'it answers, seed {SEED}', lambda: cluster.cli(
                'image', 'stat', seen, check=False).code == 0)
            away.append(time.monotonic() - since)
        for stream in streams:
            stream.ending = True
        for stream in streams:
            stream.join()
        wrong = [words for stream in streams for words in stream.wrong]
        self.assertEqual(wrong, [], f'seed {SEED}')
        stored = {k: v for s in streams for k, v in s.stored.items()}
        for image, data in stored.items():
            self.assert_same(cluster.get(image), data, f'{image}, seed {SEED}')
        away.sort()
        late = away[-max(1, len(away) // 100)]
        print(f'{RESTARTS} restarts, {len(stored)} uploads, none failed; away '
              f'{away[len(away) // 2]:.2f} s in the middle, {late:.2f} s at '
              'most but for one in a hundred')
        print(f'injected faults: {len(away)}', flush=True)
        self.assertGreaterEqual(len(stored), STREAMS)
        # Of few, the longest is what else the machine did.
        judged = late if RESTARTS >= 50 else away[len(away) // 2]
        self.assertLess(judged, MOST_AWAY, f'seed {SEED}')


if __name__ == '__main__':
    unittest.main(verbosity=2)
