"""The native module in the processes that Glance has: forked workers, green
threads of eventlet, plain threads beside an eventlet that does nothing."""
import subprocess
import sys
import textwrap
import unittest

import environment

from cluster import Cluster

BEGIN = f'''
import sys
sys.path.insert(0, {environment.HERE!r})
'''
COMMON = '''
import environment, hashlib, io, os, time, uuid
MIB = 1 << 20

def make(endpoint, **options):
    global conf
    conf, stores = environment.make_stores(fast={
        'type': 'predella', 'predella_endpoint': endpoint, **options})
    return stores['fast']

def add(store, data):
    return store.add(str(uuid.uuid4()), io.BytesIO(data), 0, 'sha512')

def read(store, uri):
    chunks, size = store.get(environment.where(conf, uri, 'fast'))
    data = b''.join(chunks)
    assert len(data) == size
    return data

def round_trip(store, size=3 * MIB + 1):
    data = os.urandom(size)
    result = add(store, data)
    assert result[3] == hashlib.sha512(data).hexdigest()
    assert read(store, result[0]) == data
'''


class ProcessTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster((100,)).start()
        cls.other = Cluster((100,)).start()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        cls.other.stop()

    def run_program(self, before, program, timeout=120):
        text = '\n'.join((
            BEGIN, before, COMMON,
            f'endpoint = {self.cluster.endpoint!r}',
            f'other_endpoint = {self.other.endpoint!r}',
            f'agent = {self.cluster.agents["store-1"].process.pid}',
            textwrap.dedent(program), "print('program ended')"))
        done = subprocess.run([sys.executable, '-c', text], timeout=timeout,
                              capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stderr[-4000:])
        self.assertIn('program ended', done.stdout)
        return done

    def test_forked_workers(self):
        """Configured first, forked then; several, one after the other ends."""
        self.run_program('', '''
            store = make(endpoint)
            workers = []
            for _ in range(4):
                pid = os.fork()
                if pid == 0:
                    for _ in range(5):
                        round_trip(store)
                    os._exit(17)
                workers.append(pid)
            for pid in workers:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
            round_trip(store)
            ''')

    def test_a_fork_that_is_too_late_is_told(self):
        self.run_program('', '''
            from glance_store import exceptions
            store = make(endpoint)
            round_trip(store)
            pid = os.fork()
            if pid == 0:
                began = time.monotonic()
                try:
                    add(store, b'abc')
                except exceptions.StorageWriteDenied as e:
                    assert 'does not survive a fork' in str(e), e
                    assert time.monotonic() - began < 10
                    del store
                    os._exit(17)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
            round_trip(store)
            ''')

    def test_nothing_is_started_by_the_configuration(self):
        self.run_program('', '''
            before = len(os.listdir('/proc/self/task'))
            make(endpoint)
            assert len(os.listdir('/proc/self/task')) == before
            sockets = [os.readlink(f'/proc/self/fd/{fd}')
                       for fd in os.listdir('/proc/self/fd')
                       if os.path.exists(f'/proc/self/fd/{fd}')]
            assert not [s for s in sockets if s.startswith('socket:')], sockets
            ''')

    def test_green_threads(self):
        """More at once than tpool has threads."""
        self.run_program('import eventlet\neventlet.monkey_patch()', '''
            store = make(endpoint)
            pool = eventlet.GreenPool(40)
            for _ in range(40):
                pool.spawn(round_trip, store)
            list(pool.imap(lambda _: round_trip(store), range(10)))
            pool.waitall()
            ''')

    def test_a_service_that_is_away_holds_up_nobody(self):
        """40 green threads and one of tpool's ask for it again and again."""
        self.run_program('import eventlet\neventlet.monkey_patch()', '''
            from eventlet import tpool
            from glance_store import exceptions
            store = make('unix:/nowhere/c', predella_read_timeout=3)
            uri = f'predella://fast/{uuid.uuid4()}/{"0" * 32}'
            def ask():
                began = time.monotonic()
                try:
                    store.get_size(environment.where(conf, uri, 'fast'))
                except exceptions.RemoteServiceUnavailable:
                    return time.monotonic() - began
            waiting = [eventlet.spawn(ask) for _ in range(40)]
            waiting.append(eventlet.spawn(tpool.execute, ask))
            slowest, last = 0, time.monotonic()
            while not all(waiting_one.dead for waiting_one in waiting):
                eventlet.sleep(0.01)
                slowest = max(slowest, time.monotonic() - last)
                last = time.monotonic()
            assert slowest < 1, slowest
            took = [one.wait() for one in waiting]
            assert min(took) >= 3 and max(took) < 8, took
            ''')

    def test_a_service_that_hangs_holds_up_nobody(self):
        """40 green threads wait for a coordinator that is stopped; other
        requests, of another store too, are answered as before."""
        self.cluster.coordinator.pause()
        try:
            self.run_program('import eventlet\neventlet.monkey_patch()', '''
                from glance_store import exceptions
                hung = make(endpoint, predella_write_timeout=5)
                well = make(other_endpoint)
                ended = []
                def wait_for_it():
                    try:
                        add(hung, b'abc')
                    except exceptions.StorageWriteDenied:
                        ended.append(1)
                waiting = [eventlet.spawn(wait_for_it) for _ in range(40)]
                eventlet.sleep(0.5)
                answered = 0
                while not ended and answered < 10:
                    round_trip(well, 1000)
                    answered += 1
                # One that blocked would have waited for all of them.
                assert answered >= 3, answered
                for thread in waiting:
                    thread.wait()
                assert len(ended) == 40
                ''')
        finally:
            self.cluster.coordinator.resume()

    def test_others_run_while_an_agent_is_slow(self):
        """It is another green thread that lets the agent go on."""
        self.run_program('import eventlet\neventlet.monkey_patch()', '''
            import signal
            data = os.urandom(40 * MIB)
            store = make(endpoint, predella_local_reads='never')
            paused = []

            def go_on():
                for _ in range(20):
                    eventlet.sleep(0.05)
                os.kill(agent, signal.SIGCONT)
                paused[-1] = time.monotonic() - paused[-1]

            def pause():
                os.kill(agent, signal.SIGSTOP)
                paused.append(time.monotonic())
                eventlet.spawn(go_on)

            class Source(io.BytesIO):
                def read(self, size):
                    if self.tell() == 5 * MIB:
                        pause()
                    return super().read(size)
            uri = store.add(str(uuid.uuid4()), Source(data), 0, 'sha512')[0]
            chunks, _ = store.get(environment.where(conf, uri, 'fast'))
            got = [next(chunks)]
            pause()
            got += chunks
            assert b''.join(got) == data
            assert len(paused) == 2 and all(1 <= one < 10 for one in paused)
            ''')

    def test_others_run_while_a_transfer_need_not_wait(self):
        """Between any two of its chunks, however fast the other side is."""
        self.run_program('import eventlet\neventlet.monkey_patch()', '''
            turns = 0

            def other():
                global turns
                while True:
                    turns += 1
                    eventlet.sleep(0)
            eventlet.spawn(other)
            seen = []

            class Source(io.BytesIO):
                def read(self, size):
                    # Slower than the network, and gives way to nobody.
                    seen.append(turns)
                    chunk = super().read(size)
                    hashlib.sha512(chunk).digest()
                    return chunk
            for local in ('auto', 'never'):
                store = make(endpoint, predella_local_reads=local)
                seen.clear()
                uri = store.add(str(uuid.uuid4()), Source(bytes(40 * MIB)), 0,
                                'sha512')[0]
                assert len(seen) == 41 and len(set(seen)) == 41, seen
                seen.clear()
                for chunk in store.get(environment.where(conf, uri, 'fast'))[0]:
                    seen.append(turns)
                    hashlib.sha512(chunk).digest()
                # The first was there when get came back.
                assert len(seen) == 40 and len(set(seen)) >= 39, seen
            ''')

    def test_a_green_thread_is_ended_from_outside(self):
        self.run_program('import eventlet\neventlet.monkey_patch()', '''
            store = make(endpoint)
            class Slow:
                def read(self, size):
                    eventlet.sleep(0.01)
                    return bytes(1000)
            image = str(uuid.uuid4())
            thread = eventlet.spawn(store.add, image, Slow(), 0, 'sha512')
            eventlet.sleep(0.5)
            thread.kill()
            try:
                with eventlet.Timeout(0.3) as timeout:
                    store.add(image, Slow(), 0, 'sha512')
            except eventlet.Timeout as e:
                assert e is timeout
            uri = store.add(image, io.BytesIO(b'abc'), 0, 'sha512')[0]
            assert read(store, uri) == b'abc'
            ''')

    def test_real_threads_beside_a_hub(self):
        """tpool's threads run no hub; they wait as threads do."""
        self.run_program('import eventlet\neventlet.monkey_patch()', '''
            from eventlet import tpool
            store = make(endpoint)
            pool = eventlet.GreenPool(30)
            for _ in range(30):
                pool.spawn(tpool.execute, round_trip, store)
            pool.waitall()
            round_trip(store)
            ''')

    def test_eventlet_that_is_only_imported(self):
        self.run_program('import eventlet', '''
            import threading
            store = make(endpoint)
            failed = []
            def work():
                try:
                    round_trip(store)
                except BaseException as e:
                    failed.append(e)
            threads = [threading.Thread(target=work) for _ in range(10)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert not failed, failed
            ''')

    def test_without_eventlet(self):
        self.run_program("sys.modules['eventlet'] = None", '''
            round_trip(make(endpoint))
            ''')

    def test_a_green_worker_after_a_fork(self):
        self.run_program('import eventlet\neventlet.monkey_patch()', '''
            store = make(endpoint)
            pid = os.fork()
            if pid == 0:
                pool = eventlet.GreenPool(10)
                for _ in range(10):
                    pool.spawn(round_trip, store)
                pool.waitall()
                os._exit(17)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
            ''')

    def test_the_interpreter_ends_with_work_under_way(self):
        """Threads that are in the middle of it do not bring it down."""
        for _ in range(5):
            self.run_program('', '''
                from glance_store_predella import native
                client = native.module().Client(endpoint, 5.0, 5.0)
                uri = add(make(endpoint), bytes(20 * MIB))[0]
                image = uri.split('/')[3]
                upload = client.start_upload(str(uuid.uuid4()), None,
                                             [('md5', 'md5')])
                for _ in range(4):
                    upload.write(bytes(MIB))
                reader = client.read(image, 0, 0)
                reader.ask(MIB)
                call = client.stat(image)
                ''')


if __name__ == '__main__':
    unittest.main()
