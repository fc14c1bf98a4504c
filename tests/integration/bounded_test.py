"""What daemons take is bounded: a large image goes through daemons and a client
that have 256 MiB of memory together, page cache included; hundreds of uploads
at once leave no descriptor and no thread behind (reliability.md G19).

PREDELLA_BOUNDED_MIB is the image's size (768), PREDELLA_BOUNDED_UPLOADS how
many at once (120). Needs root: a control group for memory.
"""
import hashlib
import os
import subprocess
import threading
import unittest

from cluster import MIB, ClusterTest, binary, random_bytes, wait_until

SIZE = int(os.environ.get('PREDELLA_BOUNDED_MIB', '768')) * MIB
UPLOADS = int(os.environ.get('PREDELLA_BOUNDED_UPLOADS', '120'))
LIMIT = 256 * MIB
# Of gRPC's own, that come and go with the load.
SPARE_THREADS = 12
SPARE_FILES = 8


class MemoryGroup:
    """A control group of `limit` bytes, of version 1 or 2."""

    def __init__(self, test, limit):
        old = os.path.isdir('/sys/fs/cgroup/memory')
        self.path = (f'/sys/fs/cgroup/{"memory/" if old else ""}'
                     f'predella-test-{os.getpid()}')
        self.peak = ('memory.max_usage_in_bytes' if old else 'memory.peak')
        try:
            os.mkdir(self.path)
            test.addCleanup(self.remove)
            self.write('memory.limit_in_bytes' if old else 'memory.max', limit)
        except OSError as error:
            test.skipTest(f'no control group for memory: {error}')

    def write(self, name, value):
        with open(os.path.join(self.path, name), 'w', encoding='ascii') as f:
            f.write(str(value))

    def add(self, pid):
        self.write('cgroup.procs', pid)

    def remove(self):
        """Whoever is in it still goes back to the group above."""
        above = os.path.join(os.path.dirname(self.path), 'cgroup.procs')
        with open(os.path.join(self.path, 'cgroup.procs'),
                  encoding='ascii') as f:
            for pid in f.read().split():
                with open(above, 'w', encoding='ascii') as procs:
                    procs.write(pid)
        os.rmdir(self.path)

    def highest(self):
        try:
            with open(os.path.join(self.path, self.peak),
                      encoding='ascii') as f:
                return int(f.read())
        except FileNotFoundError:
            return 0


def count(pid, what):
    return len(os.listdir(f'/proc/{pid}/{what}'))


class BoundedTest(ClusterTest):
    priorities = (100, 200)

    def pids(self):
        return {d.name: d.process.pid for d in
                (self.cluster.coordinator, *self.cluster.agents.values())}

    def client(self, group, *args, **streams):
        """A CLI process that is in the group from its first instruction."""
        return subprocess.Popen(
            [binary('predella'), *args],
            env={**os.environ, 'PREDELLA_ENDPOINT': self.cluster.endpoint},
            preexec_fn=lambda: group.add(os.getpid()), **streams)

    def test_a_large_image_needs_little_memory(self):
        group = MemoryGroup(self, LIMIT)
        before = self.pids()
        for pid in before.values():
            group.add(pid)
        piece = random_bytes(MIB, 1)
        whole = hashlib.sha256()
        upload = self.client(group, 'image', 'put', '-',
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for i in range(SIZE // MIB):
            data = i.to_bytes(8, 'little') + piece[8:]
            whole.update(data)
            upload.stdin.write(data)
        out, _ = upload.communicate(timeout=120)
        self.assertEqual(upload.returncode, 0)
        image = out.decode().split()[-1]
        got = hashlib.sha256()
        download = self.client(group, 'image', 'get', image,
                               stdout=subprocess.PIPE)
        while data := download.stdout.read(MIB):
            got.update(data)
        download.stdout.close()
        self.assertEqual(download.wait(timeout=60), 0)
        self.assertEqual(got.hexdigest(), whole.hexdigest())
        self.assertEqual(self.pids(), before)
        print(f'{SIZE // MIB} MiB through {LIMIT // MIB} MiB, page cache '
              f'included; at most {group.highest() // MIB} MiB were taken')

    def test_many_uploads_leave_nothing_behind(self):
        self.cluster.put(b'a first one')
        pids = self.pids()
        before = {(name, what): count(pid, what) for name, pid in pids.items()
                  for what in ('fd', 'task')}
        data = [random_bytes(MIB, i) for i in range(UPLOADS)]
        results = [None] * UPLOADS

        def put(i):
            results[i] = self.cluster.cli('image', 'put', '-', '--size',
                                          str(MIB), data=data[i], check=False,
                                          timeout=240)
        threads = [threading.Thread(target=put, args=(i,))
                   for i in range(UPLOADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, result in enumerate(results):
            self.assertEqual(result.code, 0, result.err)
            self.assert_same(self.cluster.get(result.text.split()[-1]),
                             data[i], f'upload {i}')

        def back():
            return all(
                count(pids[name], what) <=
                had + (SPARE_FILES if what == 'fd' else SPARE_THREADS)
                for (name, what), had in before.items())
        wait_until('descriptors and threads are as before', back, 60)
        after = {key: count(pids[key[0]], key[1]) for key in before}
        print(f'{UPLOADS} uploads at once; descriptors and threads: ' +
              ', '.join(f'{name} {what} {had} -> {after[name, what]}'
                        for (name, what), had in before.items()))


if __name__ == '__main__':
    unittest.main(verbosity=2)
