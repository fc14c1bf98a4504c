"""The driver over the native module and real daemons."""
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

import environment

from glance_store import exceptions
from oslo_config import cfg

import behaviour
from cluster import Cluster
from cluster import ClusterTest
from cluster import wait_until

MIB = 1 << 20


def configure(case, cluster, **options):
    environment.use_native(None)
    case.conf, stores = environment.make_stores(
        fast={'type': 'predella', 'predella_endpoint': cluster.endpoint,
              **options})
    case.store = stores['fast']


class LocalReadsTest(behaviour.Behaviour, unittest.TestCase):
    """The same over a mount in memory, whose files the agent hands out for
    certain; and who read the bytes, as the kernel counts it."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix='predella-', dir='/dev/shm')
        cls.cluster = Cluster((100,), [cls.directory + '/m']).start()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        shutil.rmtree(cls.directory)

    def setUp(self):
        configure(self, self.cluster)

    def assert_nothing_left(self, image):
        wait_until('no upload is in flight', lambda: not any(
            self.cluster.inflight(name) for name in self.cluster.paths))
        super().assert_nothing_left(image)

    def agent_read(self):
        agent = self.cluster.agents['store-1'].process.pid
        with open(f'/proc/{agent}/io', encoding='ascii') as stream:
            return int(stream.readline().split()[1])

    def test_the_agent_reads_nothing_unless_it_is_told_to(self):
        data = self.data(16 * MIB + 3)
        uri = self.add(data)[1][0]
        for mode, least, most in (('auto', 0, MIB),
                                  ('never', len(data), len(data) + MIB)):
            configure(self, self.cluster, predella_local_reads=mode)
            before = self.agent_read()
            self.assert_same(self.read(uri), data)
            read = self.agent_read() - before
            self.assertLessEqual(least, read, mode)
            self.assertLessEqual(read, most, mode)

    def test_an_agent_that_starts_again(self):
        """It takes the file back; the rest comes from the agent."""
        data = self.data(24 * MIB + 5)
        uri = self.add(data)[1][0]
        chunks, _ = self.store.get(self.where(uri))
        got = [next(chunks)]
        agent = self.cluster.agents['store-1']
        agent.kill(signal.SIGKILL)
        agent.start()
        before = self.agent_read()
        got += list(chunks)
        self.assert_same(b''.join(got), data)
        self.assertGreater(self.agent_read() - before, 10 * MIB)

    def test_damage_breaks_the_download_off(self):
        data = self.data(4 * MIB)
        image, result = self.add(data)
        with open(os.path.join(self.cluster.paths['store-1'], image),
                  'r+b') as stream:
            stream.seek(3 * MIB + 7)
            stream.write(bytes([data[3 * MIB + 7] ^ 1]))
        chunks, _ = self.store.get(self.where(result[0]))
        got = []
        with self.assertRaises(exceptions.BackendException):
            for chunk in chunks:
                got.append(chunk)
        self.assert_same(b''.join(got), data[:3 * MIB])


class BehaviourTest(behaviour.Behaviour, unittest.TestCase):
    """All tests of one cluster, as they differ in their images."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster((100, 200)).start()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()

    def setUp(self):
        configure(self, self.cluster)

    def assert_nothing_left(self, image):
        wait_until('no upload is in flight', lambda: not any(
            self.cluster.inflight(name) for name in self.cluster.paths))
        super().assert_nothing_left(image)

    def test_the_file_is_where_the_filesystem_store_would_have_it(self):
        data = self.data(MIB + 1)
        image, _ = self.add(data)
        mount, = self.cluster.where(image)
        path = os.path.join(self.cluster.paths[mount], image)
        with open(path, 'rb') as stream:
            self.assert_same(stream.read(), data)

    def test_directories_are_held_against_the_service(self):
        paths = list(self.cluster.paths.values())
        for other in (None, 'besides'):
            datadirs = [f'{paths[0]}:100']
            if other is None:
                datadirs.append(f'{paths[1]}:200')
            configure(self, self.cluster,
                      multifilesystem_store_datadir=datadirs)
            with self.assertLogs('glance_store_predella', 'DEBUG') as logs:
                self.add(b'abc')
            warned = [one for one in logs.output if 'WARNING' in one]
            self.assertEqual(0 if other is None else 1, len(warned), warned)

    def test_the_service_keeps_both_hashes(self):
        image, result = self.add(b'abc')
        stat = self.cluster.cli('image', 'stat', image, '-o', 'json').json
        self.assertEqual({'md5': result[2], 'sha512': result[3]},
                         {h['algorithm']: h['hex'] for h in stat['hashes']})

    def test_an_image_of_the_command_line_is_no_proof(self):
        image = str(uuid.uuid4())
        self.cluster.cli('image', 'put', '-', '--id', image, data=b'abc')
        self.assertRaises(exceptions.Duplicate, self.add, b'abc', image=image)

    def test_the_same_image_of_another_store_is_a_duplicate(self):
        image, first = self.add(b'abc')
        _, stores = environment.make_stores(
            twin={'type': 'predella',
                  'predella_endpoint': self.cluster.endpoint})
        with self.assertRaises(exceptions.Duplicate) as caught:
            stores['twin'].add(image, io.BytesIO(b'abc'), 3, 'sha512')
        stat = self.cluster.cli('image', 'stat', image, '-o', 'json').json
        self.assertIn(stat['upload'], str(caught.exception))
        configure(self, self.cluster)
        self.assertEqual(first, self.add(b'abc', image=image)[1])

    def test_at_once_from_threads(self):
        data = self.data(3 * MIB + 1)
        failed = []

        def work():
            try:
                for _ in range(3):
                    uri = self.add(data)[1][0]
                    self.assert_same(self.read(uri), data)
                    self.store.delete(self.where(uri))
            except BaseException as e:
                failed.append(e)
        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual([], failed)
        self.assertFalse(any(thread.is_alive() for thread in threads))

    def test_no_room_anywhere_is_said_before_the_data_is_sent(self):
        class Endless:
            sent = 0

            def read(self, size):
                self.sent += size
                return bytes(size)
        source = Endless()
        with self.assertRaises(exceptions.StorageFull) as caught:
            self.add(source, 1 << 55)
        self.assertIn('store-1', str(caught.exception))
        self.assertLess(source.sent, 64 * MIB)

    def test_nothing_is_kept_open(self):
        data = self.data(3 * MIB)
        image, result = self.add(data)

        def round_trip():
            self.assertRaises(exceptions.Invalid, self.add, data, 5)
            self.assertRaises(exceptions.Duplicate, self.add, b'x',
                              image=image)
            self.read(result[0])
            next(self.store.get(self.where(result[0]))[0])  # forgotten
            self.store.get_size(self.where(result[0]))

        def open_now():
            return len(os.listdir('/proc/self/fd')), threads_of(os.getpid())
        round_trip()
        from glance_store_predella import native
        self.assertTrue(native.module().wait_idle(20))
        before = open_now()
        for _ in range(20):
            round_trip()
        self.assertTrue(native.module().wait_idle(20))
        after = open_now()
        # gRPC may take a few of either whenever it likes.
        self.assertLess(after[0] - before[0], 10)
        self.assertLess(after[1] - before[1], 10)


def threads_of(pid):
    return len(os.listdir(f'/proc/{pid}/task'))


class FunctionalTest(unittest.TestCase):
    """What glance_store's functional base tests do. Those themselves want
    a cloud's credentials and default_store, which has no such choice."""

    BITS = b'I am a bootable image, I promise'

    def setUp(self):
        self.cluster = Cluster((100,)).start()
        self.addCleanup(self.cluster.stop)
        configure(self, self.cluster)

    def test_add_get_size_get_delete(self):
        from glance_store import multi_backend
        conf = cfg.CONF
        conf.register_opt(cfg.DictOpt('enabled_backends'))
        conf.set_override('enabled_backends', {'fast': 'predella'})
        self.addCleanup(conf.clear_override, 'enabled_backends')
        image = str(uuid.uuid4())
        uri, written, md5, _, metadata = multi_backend.add_with_multihash(
            conf, image, io.BytesIO(self.BITS), len(self.BITS), 'fast',
            'sha512')
        self.assertEqual(len(self.BITS), written)
        self.assertEqual({'store': 'fast'}, metadata)
        self.assertEqual(len(self.BITS),
                         multi_backend.get_size_from_uri_and_backend(
                             uri, 'fast'))
        data, size = multi_backend.get(uri, 'fast')
        self.assertEqual((self.BITS, len(self.BITS)), (b''.join(data), size))
        data, size = multi_backend.get(uri, 'fast', offset=5, chunk_size=7)
        self.assertEqual((self.BITS[5:12], 7), (b''.join(data), size))
        multi_backend.set_acls_for_multi_store(uri, 'fast', public=True)
        multi_backend.delete(uri, 'fast')
        self.assertRaises(exceptions.NotFound, multi_backend.get, uri, 'fast')

    def test_two_ways_to_one_cluster(self):
        other = f'unix:{self.cluster.sockets}/other'
        os.link(self.cluster.endpoint[len('unix:'):], other[len('unix:'):])
        for used in ('fast', 'slow'):
            _, stores = environment.make_stores(
                fast={'type': 'predella',
                      'predella_endpoint': self.cluster.endpoint},
                slow={'type': 'predella', 'predella_endpoint': other})
            with self.assertRaises(exceptions.StoreAddDisabled) as caught:
                stores[used].add(str(uuid.uuid4()), io.BytesIO(self.BITS), 0,
                                 'sha512')
            self.assertIn('one cluster is one store', str(caught.exception))


class FaultTest(ClusterTest):
    priorities = (100,)

    def setUp(self):
        super().setUp()
        configure(self, self.cluster, predella_write_timeout=2,
                  predella_read_timeout=2)

    def add(self, data, size=0, image=None):
        return self.store.add(image or str(uuid.uuid4()), io.BytesIO(data),
                              size, 'sha512')

    def where(self, uri):
        return environment.where(self.conf, uri, 'fast')

    def test_a_file_that_is_in_the_way(self):
        image = str(uuid.uuid4())
        path = os.path.join(self.cluster.paths['store-1'], image)
        with open(path, 'wb') as stream:
            stream.write(b'somebody put it there')
        for _ in range(2):
            with self.assertRaises(exceptions.Duplicate) as caught:
                self.add(b'abc', image=image)
            self.assertIn('a file without record (NAME_TAKEN)',
                          str(caught.exception))
        os.unlink(path)
        self.add(b'abc', image=image)

    def test_coordinator_away(self):
        uri = self.add(b'abc')[0]
        self.cluster.coordinator.kill()
        began = time.monotonic()
        self.assertRaises(exceptions.StorageWriteDenied, self.add, b'abc')
        self.assertRaises(exceptions.RemoteServiceUnavailable, self.store.get,
                          self.where(uri))
        self.assertRaises(exceptions.RemoteServiceUnavailable,
                          self.store.get_size, self.where(uri))
        late = getattr(exceptions, 'TimeoutError',
                       exceptions.RemoteServiceUnavailable)
        self.assertRaises(late, self.store.delete, self.where(uri))
        self.assertLess(time.monotonic() - began, 60)
        self.cluster.coordinator.start()
        self.cluster.wait_ready()
        self.assertEqual(b'abc', b''.join(self.store.get(self.where(uri))[0]))

    def test_coordinator_that_does_not_answer(self):
        uri = self.add(b'abc')[0]
        self.cluster.coordinator.pause()
        try:
            self.assertRaises(exceptions.RemoteServiceUnavailable,
                              self.store.get, self.where(uri))
            self.assertRaises(exceptions.StorageWriteDenied, self.add, b'abc')
        finally:
            self.cluster.coordinator.resume()

    def test_coordinator_away_at_the_commit(self):
        """The add fails in time; sent again it succeeds, whatever came of
        the first."""
        image = str(uuid.uuid4())
        data = os.urandom(2 * MIB)

        class Source(io.BytesIO):
            def read(source, size=-1):
                chunk = super().read(size)
                if not chunk:
                    # Everything is on its way; the commit is next.
                    time.sleep(0.5)
                    self.cluster.coordinator.kill()
                return chunk
        began = time.monotonic()
        self.assertRaises(exceptions.StorageWriteDenied, self.store.add,
                          image, Source(data), 0, 'sha512')
        self.assertLess(time.monotonic() - began, 40)
        self.cluster.coordinator.start()
        self.cluster.wait_ready()

        def again():
            try:
                return self.add(data, image=image)
            except exceptions.StorageWriteDenied:
                return None  # the first one is being ended, or committed
        uri = wait_until('the same add succeeds', again, 30)[0]
        self.assert_same(b''.join(self.store.get(self.where(uri))[0]), data,
                         image)

    def test_agent_away(self):
        uri = self.add(b'abc')[0]
        self.cluster.agents['store-1'].kill()
        # Away is not deleted.
        self.assertRaises(exceptions.RemoteServiceUnavailable, self.store.get,
                          self.where(uri))
        self.assertEqual(3, self.store.get_size(self.where(uri)))
        self.assertRaises(exceptions.StorageWriteDenied, self.add, b'abc')
        self.cluster.agents['store-1'].start()
        self.cluster.wait_ready()
        self.assertEqual(b'abc', b''.join(self.store.get(self.where(uri))[0]))

    def test_agent_that_does_not_answer(self):
        uri = self.add(b'abc')[0]
        # Its connection is open: only its silence tells.
        self.assertEqual(b'abc', b''.join(self.store.get(self.where(uri))[0]))
        self.cluster.agents['store-1'].pause()
        try:
            began = time.monotonic()
            self.assertRaises(exceptions.RemoteServiceUnavailable,
                              self.store.get, self.where(uri))
            self.assertLess(time.monotonic() - began, 20)
        finally:
            self.cluster.agents['store-1'].resume()
        self.assertEqual(b'abc', b''.join(self.store.get(self.where(uri))[0]))

    def test_agent_killed_in_the_middle_of_an_upload(self):
        configure(self, self.cluster, predella_write_timeout=30)
        data = os.urandom(40 * MIB)

        class Source(io.BytesIO):
            at = 0

            def read(source, size=-1):
                source.at += 1
                if source.at == 30:
                    self.cluster.agents['store-1'].kill()
                    self.cluster.agents['store-1'].start()
                return super().read(size)
        uri = self.store.add(str(uuid.uuid4()), Source(data), 0, 'sha512')[0]
        self.assert_same(b''.join(self.store.get(self.where(uri))[0]), data,
                         'after the agent was killed')

    def test_a_damaged_file_is_never_served(self):
        data = bytes(3 * MIB)
        image = str(uuid.uuid4())
        uri = self.add(data, image=image)[0]
        path = os.path.join(self.cluster.paths['store-1'], image)
        with open(path, 'r+b') as stream:
            stream.seek(17)
            stream.write(b'x')
        # At the call, while Glance may still turn elsewhere.
        with self.assertRaises(exceptions.BackendException) as caught:
            self.store.get(self.where(uri))
        self.assertIn('CHECKSUM_MISMATCH', str(caught.exception))
        chunks, _ = self.store.get(self.where(uri), offset=MIB, chunk_size=MIB)
        self.assert_same(b''.join(chunks), data[:MIB], 'what is whole')
        with open(path, 'r+b') as stream:
            stream.seek(17)
            stream.write(b'\0')
            stream.truncate(2 * MIB)
        with self.assertRaises((exceptions.BackendException,
                                exceptions.RemoteServiceUnavailable)):
            got = 0
            for chunk in self.store.get(self.where(uri))[0]:
                got += len(chunk)
        self.assertLess(got, 3 * MIB)

    def test_glance_killed_in_the_middle(self):
        image = str(uuid.uuid4())
        program = f'''
import sys
sys.path.insert(0, {environment.HERE!r})
import environment, os, signal
conf, stores = environment.make_stores(fast={{
    'type': 'predella', 'predella_endpoint': {self.cluster.endpoint!r}}})

class Source:
    sent = 0
    def read(self, size):
        self.sent += size
        if self.sent > 30 << 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(size)
stores['fast'].add({image!r}, Source(), 0, 'sha512')
'''
        # What it cannot remove goes with the cluster.
        process = subprocess.run(
            [sys.executable, '-c', program], timeout=60, check=False,
            env={**os.environ, 'TMPDIR': self.cluster.top})
        self.assertEqual(-signal.SIGKILL, process.returncode)
        self.assertEqual([], self.cluster.files('store-1'))

        def again():
            try:
                return self.add(b'abc', image=image)
            except exceptions.StorageWriteDenied:
                return None  # its stream is not yet seen to be closed
        uri = wait_until('the id can be added', again)[0]
        self.assertEqual(b'abc', b''.join(self.store.get(self.where(uri))[0]))


if __name__ == '__main__':
    unittest.main()
