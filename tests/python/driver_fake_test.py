"""The driver over a fake native module: behaviour and every error."""
import io
import os
import re
import tempfile
import types
import unittest
from unittest import mock
import uuid

import environment
import fake_native

from glance_store import exceptions
from glance_store import multi_backend

import behaviour
from glance_store_predella import calls
from glance_store_predella import datadirs_option
from glance_store_predella import errors
from glance_store_predella import neighbours
from glance_store_predella import options
from glance_store_predella import upload

ENDPOINT = 'unix:/run/predella/coordinator.sock'
# As docs/glance.md says below its table.
LATE_DELETE = ('TimeoutError' if hasattr(exceptions, 'TimeoutError')
               else 'RemoteServiceUnavailable')
TABLE = os.path.join(environment.SOURCE, 'docs', 'glance.md')


class FakeCase(unittest.TestCase):
    def setUp(self):
        self.native = fake_native.FakeNative()
        environment.use_native(self.native)
        self.addCleanup(environment.use_native, None)
        self.clock = environment.Clock(self)
        self.conf, stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT})
        self.store = stores['fast']


class BehaviourTest(behaviour.Behaviour, FakeCase):
    def test_hashes_that_the_module_lacks(self):
        self.native.unknown_hashes = {'md5', 'sha512'}
        self.test_sizes_known_and_unknown()
        self.assertEqual([], [u.hashers for u in self.native.uploads
                              if u.hashers])
        # The service knows what the module computed, so md5 decides.
        self.native.unknown_hashes = {'sha512'}
        self.test_the_same_add_again_succeeds()

    def test_an_upload_that_failed_is_given_up(self):
        image = str(uuid.uuid4())
        self.assertRaises(exceptions.Invalid, self.add, b'abc', 4, image)
        self.assertEqual([image], self.native.aborted)
        self.add(b'abcd', 4, image)
        self.assertEqual([image], self.native.aborted)

    def test_a_negative_size_begins_nothing(self):
        self.assertRaises(exceptions.Invalid, self.add, b'', -3)
        self.assertEqual([], self.native.uploads)

    def test_damage_at_the_call(self):
        """While Glance may still turn to another location."""
        place = self.where(self.add(self.data(9 << 20))[1][0])
        self.native.failures['read'] = fake_native.Error(
            'damaged', 'DATA_LOSS', 'CHECKSUM_MISMATCH')
        self.assertRaises(exceptions.BackendException, self.store.get, place)
        self.assertTrue(self.native.readers[-1].closed)

    def test_cleaning_up_has_a_limit(self):
        self.native.never_cleaned = True
        error = ValueError('of the caller')
        with mock.patch.object(upload, 'CLEANUP_SECONDS', 0.01):
            with self.assertLogs('glance_store_predella.upload', 'WARNING'):
                with self.assertRaises(ValueError) as caught:
                    self.add(behaviour.Breaks(b'abc', error))
        self.assertIs(error, caught.exception)

    def test_committed_without_a_location(self):
        """The coordinator went away between commit and answer."""
        keep = self.native.keep

        def lost(*what):
            return {**keep(*what), 'location_key': ''}
        image = str(uuid.uuid4())
        with mock.patch.object(self.native, 'keep', lost):
            self.assertRaises(exceptions.StorageWriteDenied, self.add, b'abc',
                              image=image)
        result = self.add(b'abc', image=image)[1]
        self.assertEqual(b'abc', self.read(result[0]))

    def test_an_image_without_hashes_is_no_proof(self):
        """As the command line stores it."""
        image = str(uuid.uuid4())
        self.native.keep(image, b'abc', {})
        self.assertRaises(exceptions.Duplicate, self.add, b'abc', image=image)

    def test_what_another_stored_is_not_ours(self):
        """The same data, of another store or taken in: two locations of it
        would be one file."""
        _, stores = environment.make_stores(
            twin={'type': 'predella', 'predella_endpoint': ENDPOINT + '2'})
        image, mine = self.add(b'abc')
        self.assertRaises(exceptions.Duplicate, stores['twin'].add, image,
                          io.BytesIO(b'abc'), 3, 'sha512')
        self.assertEqual(mine, self.add(b'abc', image=image)[1])
        hashes = self.native.images[image]['hashes']
        adopted = str(uuid.uuid4())
        self.native.keep(adopted, b'abc', hashes)
        with self.assertRaises(exceptions.Duplicate) as caught:
            self.add(b'abc', image=adopted)
        self.assertIn('this store did not store it', str(caught.exception))

    def test_damage_after_the_first_chunk(self):
        uri = self.add(self.data(9 << 20))[1][0]
        self.native.failures['read'] = fake_native.Error(
            'damaged', 'DATA_LOSS', 'CHECKSUM_MISMATCH')
        self.native.read_fails_at = 4 << 20
        chunks, _ = self.store.get(self.where(uri))
        got = 0
        with self.assertRaises(exceptions.BackendException):
            for chunk in chunks:
                got += len(chunk)
        self.assertEqual(4 << 20, got)
        self.assertTrue(self.native.readers[-1].closed)

    def test_a_call_that_does_not_come_back(self):
        place = self.where(self.add(b'abc')[1][0])
        self.native.hang = {'stat'}
        with mock.patch.object(calls, 'CALL_SECONDS', 0.01):
            self.assertRaises(exceptions.RemoteServiceUnavailable,
                              self.store.get_size, place)
            self.assertRaises(getattr(exceptions, LATE_DELETE),
                              self.store.delete, place)

    def test_another_image_came_before_the_delete(self):
        place = self.where(self.add(b'abc')[1][0])
        self.native.failures['delete'] = fake_native.Error(
            'another', 'ABORTED', 'GENERATION_MISMATCH')
        self.assertRaises(getattr(exceptions, LATE_DELETE),
                          self.store.delete, place)


class ErrorTableTest(FakeCase):
    """docs/glance.md says what becomes of each error; so it is."""

    def rows(self):
        with open(TABLE, encoding='utf-8') as stream:
            text = stream.read()
        table = text.split('<!-- errors -->')[1].split('\n\n')[0]
        for line in table.strip().splitlines()[2:]:
            cells = [c.strip(' `') for c in line.strip('|').split('|')]
            codes, reasons, add, get, delete = cells[:5]
            for code in re.findall('[A-Z_]+', codes):
                for reason in re.findall('[A-Z_]+', reasons) or ['']:
                    yield code, reason, add, get, delete

    def setUp(self):
        super().setUp()
        self.image = str(uuid.uuid4())
        self.place = environment.where(
            self.conf, self.store.add(self.image, io.BytesIO(b'abc'), 3,
                                      'sha512')[0], 'fast')

    def check(self, wanted, operation, call, error):
        self.native.failures = {operation: error}
        wanted = getattr(exceptions, wanted)
        with self.subTest(code=error.code, reason=error.reason,
                          operation=operation):
            # The delete of one that is not there is repeated, and says the same.
            gone = operation == 'stat' and error.reason == 'IMAGE_NOT_FOUND'
            with self.assertRaises(Exception) as caught, mock.patch.dict(
                    self.native.images, clear=gone):
                call()
            self.assertIs(wanted, type(caught.exception))
            self.assertIn(str(error), str(caught.exception))
            self.assertIs(error, caught.exception.__cause__)
        self.native.failures = {}

    def test_every_row(self):
        def add():
            self.store.add(str(uuid.uuid4()), io.BytesIO(b'x' * (3 << 20)), 0,
                           'sha512')

        def get():
            b''.join(self.store.get(self.place)[0])
        count = 0
        for code, reason, in_add, in_get, in_delete in self.rows():
            error = fake_native.Error('17 of 23 bytes', code, reason)
            count += 1
            if in_add != '-':
                for operation in ('start', 'write', 'commit'):
                    self.check(in_add, operation, add, error)
            if in_get != '-':
                for operation in ('open', 'read'):
                    self.check(in_get, operation, get, error)
                self.check(in_get, 'stat',
                           lambda: self.store.get_size(self.place), error)
            if in_delete == 'RemoteServiceUnavailable':
                in_delete = LATE_DELETE
            if in_delete != '-':
                for operation in ('stat', 'delete'):
                    self.check(in_delete, operation,
                               lambda: self.store.delete(self.place), error)
        self.assertGreater(count, 40)

    def test_every_reason_has_a_row(self):
        api = os.path.join(environment.SOURCE, 'common', 'errors.h')
        with open(api, encoding='utf-8') as stream:
            reasons = set(re.findall(r'k\w+ =\s+"([A-Z_]+)"', stream.read()))
        self.assertGreater(len(reasons), 30)
        # Of that one the text below the table tells.
        self.assertEqual({'IMAGE_EXISTS'},
                         reasons - {row[1] for row in self.rows()})

    def test_what_glance_would_take_for_something_else(self):
        for code in ('NOT_FOUND', 'UNAVAILABLE', 'INTERNAL', 'UNKNOWN'):
            for reason in ('', 'IMAGE_NOT_FOUND', 'UPLOAD_NOT_FOUND'):
                error = fake_native.Error('x', code, reason)
                self.assertNotIsInstance(errors.for_add(error),
                                         exceptions.NotFound)
                if (code, reason) != ('NOT_FOUND', 'IMAGE_NOT_FOUND'):
                    for mapping in (errors.for_get, errors.for_delete):
                        self.assertNotIsInstance(
                            mapping(error),
                            (exceptions.NotFound,
                             exceptions.UnsupportedBackend,
                             exceptions.StoreDeleteNotSupported))

    def test_delete_says_timeout_where_glance_store_has_it(self):
        late = type('TimeoutError', (exceptions.GlanceStoreException,), {})
        error = fake_native.Error('x', 'UNAVAILABLE')
        with mock.patch.object(exceptions, 'TimeoutError', late, create=True):
            self.assertIs(late, type(errors.for_delete(error)))
            self.assertIs(exceptions.RemoteServiceUnavailable,
                          type(errors.for_get(error)))


class ConfigurationTest(unittest.TestCase):
    def setUp(self):
        self.native = fake_native.FakeNative()
        environment.use_native(self.native)
        self.addCleanup(environment.use_native, None)
        self.clock = environment.Clock(self)

    def assert_read_only(self, store, sentence):
        with self.assertRaises(exceptions.BadStoreConfiguration) as caught:
            store.configure_add()
        self.assertIn(sentence, str(caught.exception))
        self.assertRaises(exceptions.StoreAddDisabled, store.add, 'id',
                          io.BytesIO(b'abc'), 3, 'sha512')
        place = types.SimpleNamespace(store_location=types.SimpleNamespace(
            image_id=str(uuid.uuid4()), key='0' * 32))
        self.assertRaises(exceptions.RemoteServiceUnavailable, store.get,
                          place)
        self.assertRaises(exceptions.RemoteServiceUnavailable,
                          store.get_size, place)
        # Glance takes StoreDeleteNotSupported for an image it may forget.
        self.assertRaises(getattr(exceptions, LATE_DELETE), store.delete,
                          place)
        self.assertTrue(store.url_prefix)

    def one(self, **section):
        return environment.make_stores(
            fast={'type': 'predella', **section})[1]['fast']

    def test_without_an_endpoint(self):
        self.assert_read_only(self.one(), 'predella_endpoint is not set')

    def test_with_a_wrong_endpoint(self):
        self.assert_read_only(self.one(predella_endpoint='nonsense'),
                              'nonsense is no address')

    def test_without_the_native_module(self):
        environment.use_native(None)
        with mock.patch('importlib.import_module',
                        side_effect=ImportError('libgrpc++ is missing')):
            store = self.one(predella_endpoint=ENDPOINT)
            self.assert_read_only(store, 'libgrpc++ is missing')

    def test_directories_that_are_no_list_of_directories(self):
        for text, sentence in (('/a:x', 'is no number'),
                               ('a:1', 'begin with a slash'),
                               ('/a:1,/a/:2', '/a twice'),
                               ('/a:1,/b', 'a priority, or none')):
            self.assert_read_only(self.one(
                predella_endpoint=ENDPOINT,
                multifilesystem_store_datadir=text.split(',')), sentence)

    def test_directories_are_held_against_the_service(self):
        mounts = [{'name': 'mounts/a', 'path': '/a', 'priority': 100},
                  {'name': 'mounts/b', 'path': '/x:y/b', 'priority': 200}]
        for text, said in (
                ('/a:100,/x:y/b:200', []),
                ('one=/a/:100,two=/x:y/b:200', []),
                ('/a,/x:y/b', []),
                ('/a:200,/x:y/b:200', ['/a has priority 100 and not 200']),
                ('/a:100', ['it has /x:y/b besides']),
                ('/a:1,/x:y/b:200,/c:3', ['no mount serves /c',
                                          '/a has priority 100 and not 1'])):
            with self.subTest(text):
                self.native.mounts = mounts
                store = self.one(
                    predella_endpoint=ENDPOINT,
                    multifilesystem_store_datadir=text.split(','))
                with self.assertLogs('glance_store_predella', 'DEBUG') as logs:
                    self.add(store)
                    self.add(store)
                warned = [one.getMessage() for one in logs.records
                          if one.levelname == 'WARNING']
                self.assertEqual(said, [one.split(' has: ')[1]
                                        for one in warned], 'once each')
        # One that was not heard yet may be any.
        self.assertEqual([], datadirs_option.differences(
            {'/a': 100, '/c': 1},
            [mounts[0], {'name': 'mounts/c', 'path': '', 'priority': 0}]))

    def test_two_stores_of_one_cluster(self):
        _, stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT},
            slow={'type': 'predella', 'predella_endpoint': ENDPOINT})
        self.assert_read_only(stores['fast'], 'one cluster is one store')
        self.assert_read_only(stores['slow'], 'one cluster is one store')

    def add(self, store):
        return store.add(str(uuid.uuid4()), io.BytesIO(b'abc'), 3, 'sha512')

    def test_two_ways_to_one_cluster(self):
        """Endpoints do not tell; the cluster itself does, at the first add of
        either: a process may use only one of them."""
        for used in ('fast', 'slow'):
            _, stores = environment.make_stores(
                fast={'type': 'predella', 'predella_endpoint': ENDPOINT},
                slow={'type': 'predella', 'predella_endpoint': ENDPOINT + '2'})
            self.native.uids = {}
            for _ in range(2):
                with self.assertRaises(exceptions.StoreAddDisabled) as caught:
                    self.add(stores[used])
                self.assertIn('one cluster is one store',
                              str(caught.exception))
            self.assertEqual([], self.native.uploads)
            self.native.uids = {ENDPOINT + '2': 'another'}
            self.add(stores[used])
            self.native.asked.clear()
            self.add(stores[used])
            self.assertEqual([], self.native.asked, 'once a process')
            self.native.uploads.clear()

    def test_a_neighbour_that_is_away_keeps_nobody_waiting(self):
        _, stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT},
            slow={'type': 'predella', 'predella_endpoint': ENDPOINT + '2'})
        self.native.away = {ENDPOINT + '2'}
        self.add(stores['fast'])
        self.native.asked.clear()
        self.add(stores['fast'])
        self.assertEqual([], self.native.asked)
        # It alone is asked again later. Its own cluster may be away by then:
        # that is for the upload itself to wait for.
        self.native.away.add(ENDPOINT)
        with mock.patch.object(neighbours.time, 'monotonic', lambda: 1e9):
            self.add(stores['fast'])
        self.assertEqual([ENDPOINT + '2'], self.native.asked)
        # And then it tells.
        self.native.away = set()
        with mock.patch.object(neighbours.time, 'monotonic', lambda: 2e9):
            self.assertRaises(exceptions.StoreAddDisabled, self.add,
                              stores['fast'])

    def test_one_endpoint_by_other_words(self):
        with tempfile.TemporaryDirectory() as top:
            os.symlink(top, top + '/link')
            for one, other in ((f'unix:{top}/c', f'unix:{top}/link/c'),
                               (f'unix:{top}/c', f'unix://{top}/./c'),
                               ('Host:7400', 'host:7400')):
                self.assertTrue(neighbours.same_endpoint(one, other))
            self.assertFalse(neighbours.same_endpoint(
                f'unix:{top}/c', f'unix:{top}/d'))
            self.assertFalse(neighbours.same_endpoint('a:7400', 'a:7401'))
            _, stores = environment.make_stores(
                fast={'type': 'predella', 'predella_endpoint':
                      f'unix:{top}/c'},
                slow={'type': 'predella', 'predella_endpoint':
                      f'unix:{top}/link/c'})
            for store in stores.values():
                self.assert_read_only(store, 'one cluster is one store')

    def test_the_same_store_configured_again(self):
        kept = []
        for _ in range(2):
            kept.append(self.one(predella_endpoint=ENDPOINT))
            self.add(kept[-1])

    def test_a_cluster_that_cannot_be_asked(self):
        store = self.one(predella_endpoint=ENDPOINT, predella_write_timeout=7)
        self.native.failures['cluster'] = fake_native.Error('away')
        began = self.clock.now
        self.assertRaises(exceptions.StorageWriteDenied, self.add, store)
        self.assertEqual(7, self.clock.now - began)
        self.native.failures.clear()
        self.add(store)

    def test_beside_others(self):
        conf, stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT},
            fast2={'type': 'predella', 'predella_endpoint': ENDPOINT + '2'},
            disk={'type': 'file', 'filesystem_store_datadir': '/tmp'})
        self.assertEqual({'fast', 'fast2', 'disk'}, set(stores))
        self.native.uids = {ENDPOINT + '2': 'another'}
        uris = {}
        for name in ('fast', 'fast2'):
            uris[name] = self.add(stores[name])[0]
        # How Glance finds the store of a location without metadata.
        for name, uri in uris.items():
            self.assertEqual(
                [name], [n for n, s in stores.items()
                         if s.url_prefix and uri.startswith(s.url_prefix)])

    def test_timeouts_reach_the_client(self):
        store = self.one(predella_endpoint=ENDPOINT, predella_write_timeout=7,
                         predella_read_timeout=5)
        self.assertEqual((7.0, 5.0), store._client.timeouts)
        store = self.one(predella_endpoint=ENDPOINT)
        self.assertEqual((60.0, 30.0), store._client.timeouts)

    def test_whether_local_files_are_read_reaches_the_client(self):
        store = self.one(predella_endpoint=ENDPOINT)
        self.assertIs(True, store._client.local_reads)
        store = self.one(predella_endpoint=ENDPOINT,
                         predella_local_reads='never')
        self.assertIs(False, store._client.local_reads)

    def test_defaults_of_all_backends(self):
        from glance_store import driver as upstream
        if not hasattr(upstream, 'BackendGroupConfiguration'):
            self.skipTest('glance_store 5.0.0 has backend_defaults')
        store = self.one(predella_endpoint=ENDPOINT)
        store.conf.set_override('predella_read_timeout', 9,
                                group='backend_defaults')
        store.configure_add()
        self.assertEqual((60.0, 9.0), store._client.timeouts)
        # Of glance_store's own options it says nothing.
        for name, value in (('weight', 5), ('store_description', 'said')):
            store.conf.register_opt(
                next(one for one in upstream._MULTI_BACKEND_OPTS
                     if one.name == name), group='backend_defaults')
            store.conf.set_override(name, value, group='backend_defaults')
        self.assertEqual(0, store.weight)
        self.assertIsNone(store.conf.fast.store_description)

    def test_names_that_a_url_must_quote(self):
        _, stores = environment.make_stores(
            **{'a/b c': {'type': 'predella', 'predella_endpoint': ENDPOINT}})
        self.assertEqual('predella://a%2Fb%20c/', stores['a/b c'].url_prefix)

    def test_options(self):
        for option in options.OPTIONS:
            # Of the blueprint, and no driver of Glance's has it.
            self.assertTrue(
                option.name.startswith('predella_') or
                option.name == 'multifilesystem_store_datadir')
            self.assertTrue(option.help.strip())
        self.assertEqual([('predella', options.OPTIONS)],
                         options.list_opts())
        import importlib.metadata
        entry, = [e for e in importlib.metadata.entry_points(
            group='oslo.config.opts') if e.name == 'glance_store_predella']
        self.assertIs(options.list_opts, entry.load())
        self.assertIn('predella', dict(multi_backend._list_config_opts()))


if __name__ == '__main__':
    unittest.main()
