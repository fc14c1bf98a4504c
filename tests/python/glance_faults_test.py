"""What the stock store fails, in a real glance-api: full and missing
directories, mounts that hang, processes that are killed, and strangers."""
import concurrent.futures
import os
import random
import re
import socket
import threading
import time
import unittest

from database_servers import MariaDb
from real_glance import DEBIANS_UWSGI
from real_glance import Glance
from real_glance import USER
from real_glance import UWSGI
from cluster import Cluster
from cluster import wait_until

MIB = 1 << 20
REAL_THREADS = UWSGI != DEBIANS_UWSGI
STORES = '''
[fast]
predella_endpoint = ENDPOINT
predella_write_timeout = 5
predella_read_timeout = 3
'''


def data_of(size, seed=1):
    return random.Random(seed).randbytes(size)


class FaultCase(unittest.TestCase):
    priorities = (100, 200)
    coordinator_args = ()
    more = ''

    overlapping = False  # uploads

    def setUp(self):
        self.cluster = Cluster(self.priorities,
                               coordinator_args=self.coordinator_args)
        self.addCleanup(self.cluster.stop)
        self.prepare()
        self.cluster.start()
        others = {}
        if self.overlapping and REAL_THREADS:
            if MariaDb.missing():
                self.skipTest(MariaDb.missing())
            server = MariaDb()
            self.addCleanup(server.stop)
            others['database'] = server.url
        self.glance = Glance('fast:predella', STORES.replace(
            'ENDPOINT', self.cluster.endpoint), more=self.more, **others)
        self.addCleanup(self.glance.stop)

    def prepare(self):
        """Before the agents run."""

    def upload(self, data, chunked=True, status=204):
        image = self.glance.create()
        self.assertEqual(status, self.glance.upload(image, data, chunked),
                         self.glance.log()[-3000:])
        return image

    def assert_served(self, image, data):
        status, got = self.glance.download(image)
        self.assertEqual((200, len(data)), (status, len(got)))
        self.assertTrue(got == data, 'other bytes')

    def begin(self, image, size, sent):
        """An upload of which only a part was sent, and its connection."""
        connection = socket.create_connection(('127.0.0.1', self.glance.port))
        self.addCleanup(connection.close)
        head = ''.join(f'{k}: {v}\r\n' for k, v in USER.items())
        connection.sendall((
            f'PUT /v2/images/{image}/file HTTP/1.1\r\nHost: x\r\n{head}'
            'Content-Type: application/octet-stream\r\n'
            f'Content-Length: {size}\r\n\r\n').encode())
        connection.sendall(bytes(sent))
        wait_until('the upload is in flight', self.inflight)
        return connection

    def inflight(self):
        return [one for name in self.cluster.paths
                for one in self.cluster.inflight(name)]


class KilledGlanceTest(FaultCase):
    # Until then it might come back and go on.
    coordinator_args = ('--upload-ttl', '5s')

    def test_a_glance_that_is_killed_leaves_nothing(self):
        def again():
            self.glance.kill()
            self.glance.start()
        self.killed_by(again)

    def test_a_worker_that_is_killed_leaves_nothing(self):
        before = self.glance.process.pid
        self.killed_by(self.glance.kill_workers)
        self.assertIsNone(self.glance.process.poll())
        self.assertEqual(before, self.glance.process.pid)

    def killed_by(self, kill):
        image = self.glance.create()
        self.begin(image, 100 * MIB, 30 * MIB)
        kill()
        wait_until('what was sent is removed', lambda: not self.inflight(), 60)
        self.assertEqual([], [name for path in self.cluster.paths
                              for name in self.cluster.files(path)])
        # Glance itself leaves it in saving; nothing of ours is in the way.
        self.assertEqual('saving', self.glance.show(image)['status'])
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{image}')[0])
        data = data_of(3 * MIB)
        self.assert_served(self.upload(data), data)


class KilledAgentTest(FaultCase):
    def test_an_agent_that_is_killed_costs_no_upload(self):
        data = data_of(60 * MIB)
        killed = threading.Event()

        def kill():
            wait_until('the upload is in flight', self.inflight)
            agent = self.cluster.agents['store-1']
            agent.kill()
            killed.set()
            time.sleep(1)
            agent.start()
        thread = threading.Thread(target=kill)
        thread.start()
        image = self.glance.create()
        self.assertEqual(204, self.glance.call(
            'PUT', f'/v2/images/{image}/file', self.slowly(data), True,
            Transfer_Encoding='chunked')[0], self.glance.log()[-3000:])
        thread.join()
        self.assertTrue(killed.is_set())
        self.assert_served(image, data)

    @staticmethod
    def slowly(data):
        """So that something may happen meanwhile."""
        size = MIB // 4  # uWSGI takes no chunks of a MiB
        for at in range(0, len(data), size):
            time.sleep(0.005)
            yield data[at:at + size]


class FrozenTest(FaultCase):
    def test_a_frozen_mount_freezes_nobody(self):
        first = self.upload(data_of(MIB, 1))
        agent, = self.cluster.where(first)
        other = 'store-2' if agent == 'store-1' else 'store-1'
        self.cluster.agents[agent].pause()
        try:
            with concurrent.futures.ThreadPoolExecutor(30) as pool:
                # More than tpool has threads.
                held = [pool.submit(self.glance.download, first)
                        for _ in range(25)]
                slowest = 0
                for _ in range(20):
                    began = time.monotonic()
                    self.assertEqual(200, self.glance.call(
                        'GET', '/v2/images')[0])
                    slowest = max(slowest, time.monotonic() - began)
                self.assertLess(slowest, 2)
                self.assertEqual({503}, {one.result()[0] for one in held})
            wait_until('it is known', lambda: self.cluster.cli(
                'mount', 'stat', agent, '-o', 'json').json['health'] !=
                'HEALTH_ONLINE', 30)
            data = data_of(2 * MIB, 2)
            second = self.upload(data)
            self.assertEqual([other], self.cluster.where(second))
            self.assert_served(second, data)
        finally:
            self.cluster.agents[agent].resume()
        wait_until('it is well again', lambda: self.glance.download(
            first)[0] == 200, 60)


class MountsTest(FaultCase):
    """Small file systems of their own; root in a mount namespace."""
    overlapping = True

    def prepare(self):
        self.mount('store-1', '24m')
        self.mount('store-2', '200m')

    def mount(self, name, size):
        path = self.cluster.paths[name]
        if os.environ.get('PREDELLA_MOUNT_NAMESPACE') != '1':
            self.skipTest('needs root and a mount namespace')
        self.assertEqual(0, os.system(
            f'mount -t tmpfs -o size={size} tmpfs {path}'))
        self.addCleanup(os.system, f'umount -lq {path}')

    def test_unknown_sizes_go_where_there_is_room(self):
        data = data_of(60 * MIB)
        image = self.upload(data)
        self.assertEqual(['store-2'], self.cluster.where(image))
        self.assert_served(image, data)

    def test_overlapping_uploads_go_where_there_is_room(self):
        data = [data_of(11 * MIB, seed) for seed in range(6)]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            images = list(pool.map(lambda one: self.upload(one), data))
        for image, one in zip(images, data):
            self.assert_served(image, one)

    def test_no_room_anywhere(self):
        image = self.glance.create()
        self.assertEqual(413, self.refused(image, data_of(1) * (260 * MIB)),
                         self.glance.log()[-3000:])
        self.assertEqual('queued', self.glance.show(image)['status'])
        wait_until('nothing of it is left', lambda: not self.inflight())
        self.assertEqual(204, self.glance.upload(image, b'small'))

    def refused(self, image, data):
        """The status. uWSGI resets who sends on after the answer, which goes
        with it; its log has the answer."""
        try:
            return self.glance.upload(image, data, True)
        except (ConnectionResetError, BrokenPipeError):
            if not self.glance.uwsgi:
                raise
        said = re.compile(rf'PUT /v2/images/{image}/file .*HTTP/1\.1 (\d+)\)')
        return int(wait_until('the answer is in the log', lambda: said.search(
            self.glance.log()))[1])

    def test_an_unmounted_directory_is_not_written(self):
        path = self.cluster.paths['store-1']
        image = self.upload(b'on the mount')
        self.assertEqual(['store-1'], self.cluster.where(image))
        self.assertEqual(0, os.system(f'umount -l {path}'))
        wait_until('it is known', lambda: self.cluster.cli(
            'mount', 'stat', 'store-1', '-o', 'json').json['health'] ==
            'HEALTH_ABSENT')
        data = data_of(MIB)
        other = self.upload(data)
        self.assertEqual(['store-2'], self.cluster.where(other))
        self.assertEqual([], os.listdir(path))
        self.assertEqual(503, self.glance.download(image)[0])
        self.assertEqual('active', self.glance.show(image)['status'])


class StrangerTest(FaultCase):
    more = 'show_multiple_locations = true'

    def test_a_location_can_not_be_guessed(self):
        data = data_of(MIB)
        victim = self.upload(data)
        theirs = self.glance.create()
        stranger = {'X_Project_Id': 'other', 'X_Tenant_Id': 'other',
                    'X_User_Id': 'other', 'X_Roles': 'member'}
        mine = self.glance.call('POST', '/v2/images', {
            'name': 'x', 'disk_format': 'raw', 'container_format': 'bare'},
            **stranger)[1]['id']
        self.assertEqual('queued', self.glance.show(theirs)['status'])
        for key in ('0' * 32, 'f' * 32):
            for image in (mine, theirs):
                as_whom = stranger if image == mine else {}
                self.assertEqual(400, self.register(
                    image, f'predella://fast/{victim}/{key}', **as_whom))
                # Nor is anything deleted with it.
                self.assertEqual('queued', self.glance.show(image)['status'])
        self.assertEqual(204, self.glance.call(
            'DELETE', f'/v2/images/{mine}', **stranger)[0])
        self.assert_served(victim, data)
        # It is the key that was wrong.
        key = self.cluster.cli('image', 'stat', victim, '-o',
                               'json').json['locationKey']
        self.assertEqual(200, self.register(
            theirs, f'predella://fast/{victim}/{key}'))

    def register(self, image, url, **as_whom):
        return self.glance.patch(image, [{
            'op': 'add', 'path': '/locations/-',
            'value': {'url': url, 'metadata': {}}}], **as_whom)


if __name__ == '__main__':
    unittest.main()
