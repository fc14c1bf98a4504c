"""Reads through the open file, on file systems of a local disk and of memory,
and never on another one: what is read, what it leaves in the processes, and what
happens when the bytes, the disk or the agent are not as they should be.

Needs root, loop devices and FUSE. That the agent read nothing shows in what the
kernel counts for its process.
"""
import os
import random
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from cluster import MIB, Cluster, ClusterTest, random_bytes, wait_until
from fault_mount import FaultMount, need_faultfs
from namespace_mounts import make_ext4, make_tmpfs, need_namespace

SIZE = 24 * MIB + 4321
# The agent's own reads meanwhile: probes, records.
NOISE = 2 * MIB
ENDS = 45 + 15  # what a read of a hung disk is given, and this machine's load


def field(number, value):
    """A string or bytes of a protobuf message shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(value)]) + value


class LocalReads(ClusterTest):
    def begin(self, *paths):
        self.cluster = Cluster(tuple(100 + i for i in range(len(paths))),
                               [os.path.join(p, 'm') for p in paths],
                               agent_args=('--reserve', '1MiB',
                                           '--drain-timeout', '1s'))
        self.addCleanup(self._stop)
        self.cluster.start()

    def put_on(self, name, seed, size=SIZE):
        others = [n for n in self.cluster.paths if n != name]
        for other in others:
            self.cluster.cli('mount', 'cordon', other)
        data = random_bytes(size, seed)
        image = self.cluster.put(data)
        for other in others:
            self.cluster.cli('mount', 'uncordon', other)
        self.assertEqual(self.cluster.where(image), [name])
        return image, data

    def agent_reads(self, name, work):
        """Bytes that the agent of a mount read while `work` ran."""
        def count():
            pid = self.cluster.agents[name].process.pid
            with open(f'/proc/{pid}/io', encoding='ascii') as f:
                return int(f.readline().split()[1])
        before = count()
        work()
        return count() - before

    def begin_get(self, image):
        """A download whose reader has taken the first MiB and no more."""
        get = self.cluster.spawn_cli('image', 'get', image)
        self.addCleanup(get.stdout.close)
        self.addCleanup(get.stdin.close)
        self.addCleanup(get.stderr.close)
        self.addCleanup(get.wait)
        self.addCleanup(get.kill)
        return get, get.stdout.read(MIB)

    @staticmethod
    def reading_thread(pid):
        for task in os.listdir(f'/proc/{pid}/task'):
            with open(f'/proc/{pid}/task/{task}/comm', encoding='ascii') as f:
                if f.read().strip() == 'predella-local':
                    return task
        return None

    @staticmethod
    def open_in(pid, task):
        out = []
        base = f'/proc/{pid}/task/{task}/fd'
        for number in os.listdir(base):
            try:
                out.append(os.readlink(f'{base}/{number}'))
            except FileNotFoundError:
                pass
        return out

    def check_same(self, got, want, what):
        self.assert_same(got, want, what)


class WhereItIsDone(LocalReads):
    def setUp(self):
        need_faultfs(self)
        self.fuse = FaultMount(self)
        ext4 = make_ext4(self, 200)
        tmpfs, = make_tmpfs(self, 200)
        self.begin(ext4, tmpfs, self.fuse.path)

    def test_on_disks_and_in_memory_and_never_elsewhere(self):
        for name, local in (('store-1', True), ('store-2', True),
                            ('store-3', False)):
            image, data = self.put_on(name, name)
            for mode in ('auto', 'never'):
                got = []
                read = self.agent_reads(name, lambda: got.append(
                    self.cluster.get(image, '--local-reads', mode)))
                self.check_same(got[0], data, f'{name}, {mode}')
                if local and mode == 'auto':
                    self.assertLess(read, NOISE, f'{name}, {mode}')
                else:
                    self.assertGreaterEqual(read, SIZE, f'{name}, {mode}')
            part = self.cluster.get(image, '--offset', str(MIB - 5),
                                    '--length', str(2 * MIB))
            self.check_same(part, data[MIB - 5:3 * MIB - 5], name)

    def test_a_socket_without_a_right_hands_out_nothing(self):
        image, _ = self.put_on('store-1', 5)
        stat = self.cluster.cli('image', 'stat', image, '-o', 'json').json
        uid = self.cluster.cli('mount', 'stat', 'store-1', '-o', 'json'
                               ).json['uid']
        request = (field(1, f'images/{image}'.encode()) +
                   field(2, stat['generation'].encode()) +
                   field(3, uid.encode()) + field(4, b'made up'))
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(self.cluster.sockets + '/store-1.fd')
            client.sendall(struct.pack('<I', len(request)) + request)
            answer, files, _, _ = socket.recv_fds(client, 65536, 4)
        self.assertIn(b'CAPABILITY_INVALID', answer)
        self.assertEqual(files, [])


class WhatGoesWrong(LocalReads):
    def setUp(self):
        need_namespace(self)
        self.ext4 = make_ext4(self, 200)
        self.begin(self.ext4)

    def test_damage_is_found_and_told(self):
        image, data = self.put_on('store-1', 1)
        at = random.Random(1).randrange(5 * MIB, 6 * MIB)
        with open(os.path.join(self.cluster.paths['store-1'], image),
                  'r+b') as f:
            f.seek(at)
            f.write(bytes([data[at] ^ 1]))
        good = self.cluster.get(image, '--length', str(5 * MIB))
        self.check_same(good, data[:5 * MIB], 'before the damage')
        bad = self.cluster.cli('image', 'get', image, check=False)
        self.assertNotEqual(bad.code, 0)
        self.assertIn('checksum', bad.err)
        self.check_same(bad.out, data[:len(bad.out)], 'up to the damage')
        self.assertLessEqual(len(bad.out), at // MIB * MIB)

        def degraded():
            stat = self.cluster.cli('image', 'stat', image, '-o', 'json').json
            return stat['health'] == 'IMAGE_HEALTH_DEGRADED'
        wait_until('the coordinator knows of the damage', degraded)

    def test_the_thread_that_reads_has_nothing_else(self):
        image, _ = self.put_on('store-1', 2)
        get, _ = self.begin_get(image)
        task = wait_until('it reads', lambda: self.reading_thread(get.pid))
        files = self.open_in(get.pid, task)
        self.assertEqual(sorted(f for f in files if not
                                f.startswith('socket:')),
                         ['/dev/null'] * 3 +
                         [os.path.join(self.cluster.paths['store-1'], image)])
        self.assertEqual(len(files), 5)
        everybodys = self.open_in(get.pid, get.pid)
        self.assertEqual([f for f in everybodys if image in f], [])

    def test_a_removed_image_is_read_to_its_end(self):
        image, data = self.put_on('store-1', 3)
        get, first = self.begin_get(image)
        self.cluster.cli('image', 'rm', image)
        wait_until('the file is gone', lambda: image not in
                   self.cluster.files('store-1'))
        self.check_same(first + get.stdout.read(), data, 'after the delete')
        self.assertEqual(get.wait(30), 0)

    def test_the_agent_takes_the_file_back(self):
        image, data = self.put_on('store-1', 4)
        get, first = self.begin_get(image)
        wait_until('it reads', lambda: self.reading_thread(get.pid))
        agent = self.cluster.agents['store-1']
        agent.kill(signal.SIGTERM)
        # Nothing of it is open any more, though the download is not done.
        wait_until('it can be unmounted', lambda: subprocess.run(
            ['umount', self.ext4], check=False,
            capture_output=True).returncode == 0)
        self.assertIsNone(get.poll())
        loop = os.path.join(os.path.dirname(self.ext4), 'image')
        subprocess.run(['mount', '-o', 'loop', loop, self.ext4], check=True)
        agent.start()
        self.cluster.wait_ready()
        self.check_same(first + get.stdout.read(), data, 'after a restart')
        self.assertEqual(get.wait(60), 0)


class DiskHangs(LocalReads):
    """An ext4 on a loop device of a file on the fault file system."""

    def setUp(self):
        need_faultfs(self)
        self.disk = FaultMount(self, direct=True)
        image = os.path.join(self.disk.path, 'disk.img')
        with open(image, 'wb') as f:
            f.truncate(200 << 20)
        subprocess.run(['mkfs.ext4', '-q', '-F', image], check=True)
        self.path = tempfile.mkdtemp(prefix='lr-', dir='/tmp')
        self.addCleanup(os.rmdir, self.path)
        mounted = subprocess.run(['mount', '-o', 'loop', image, self.path],
                                 check=False, capture_output=True)
        if mounted.returncode != 0:
            self.skipTest('no loop mounts here: ' + mounted.stderr.decode())
        self.addCleanup(subprocess.run, ['umount', '-l', self.path],
                        check=False)
        self.begin(self.path)
        self.addCleanup(self.disk.heal)  # before its agent can end

    def test_the_read_is_left_behind_and_the_agent_asked(self):
        image, data = self.put_on('store-1', 6)
        os.sync()
        path = os.path.join(self.cluster.paths['store-1'], image)
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        rule = self.disk.rule('read', 'hang')
        get = self.cluster.spawn_cli('image', 'get', image)
        out = []
        pipe = threading.Thread(target=lambda: out.append(get.communicate()))
        pipe.start()
        since = time.monotonic()
        pipe.join(ENDS)
        took = time.monotonic() - since
        hung = pipe.is_alive()
        hits = self.disk.counts(rule)['injected']
        self.disk.heal()
        pipe.join(60)
        self.assertFalse(hung, f'it did not end within {ENDS} s')
        self.assertGreater(hits, 0)
        self.assertNotEqual(get.returncode, 0)
        self.assertIn(b'store-1', out[0][1])
        print(f'ended after {took:.1f} s: {out[0][1].decode()}')
        self.cluster.wait_ready()
        self.check_same(self.cluster.get(image), data, 'healed')


if __name__ == '__main__':
    import unittest
    unittest.main(verbosity=2)
