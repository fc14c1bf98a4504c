"""When the driver says NotFound: where the cluster may be another store's it
does not, as Glance would forget the image."""
import io
import types
import unittest
from unittest import mock
import uuid

import environment
import fake_native

from glance_store import exceptions

from driver_fake_test import ENDPOINT
from driver_fake_test import LATE_DELETE
from glance_store_predella import neighbours

OTHER = ENDPOINT + '2'
SAME = 'one cluster is one store'


class ClaimTest(unittest.TestCase):
    def setUp(self):
        self.native = fake_native.FakeNative()
        environment.use_native(self.native)
        self.addCleanup(environment.use_native, None)
        self.clock = environment.Clock(self)
        self.again()

    def again(self, other=OTHER):
        """As in a new process of Glance."""
        _, self.stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT},
            slow={'type': 'predella', 'predella_endpoint': other})

    def add(self, store='fast'):
        image = str(uuid.uuid4())
        self.stores[store].add(image, io.BytesIO(b'abc'), 3, 'sha512')
        return self.where(image, self.native.images[image]['location_key'])

    @staticmethod
    def where(image=None, key='0' * 32):
        return types.SimpleNamespace(store_location=types.SimpleNamespace(
            image_id=image or str(uuid.uuid4()), key=key))

    def asks(self, store):
        store = self.stores[store]
        late = getattr(exceptions, LATE_DELETE)
        return ((store.get, exceptions.RemoteServiceUnavailable),
                (store.get_size, exceptions.RemoteServiceUnavailable),
                (store.delete, late))

    def assert_refused(self, store, place, why):
        for ask, refusal in self.asks(store):
            with self.subTest(ask=ask.__name__):
                with self.assertRaises(refusal) as caught:
                    ask(place)
                self.assertIn(why, str(caught.exception))

    def assert_not_found(self, store, place=None):
        for ask, _ in self.asks(store):
            with self.subTest(ask=ask.__name__):
                self.assertRaises(exceptions.NotFound, ask,
                                  place or self.where())

    def test_two_ways_to_one_cluster(self):
        """Whatever is asked first, and by whichever of the two."""
        for store in ('fast', 'slow'):
            for number in range(3):
                self.again()
                ask, refusal = self.asks(store)[number]
                with self.assertRaises(refusal) as caught:
                    ask(self.where())
                self.assertIn(SAME, str(caught.exception))
                self.assert_refused(store, self.where(), SAME)

    def test_after_an_add_was_refused_for_it(self):
        self.assertRaises(exceptions.StoreAddDisabled, self.add)
        self.assert_refused('fast', self.where(), SAME)

    def test_an_image_that_is_found_is_there(self):
        self.native.uids = {OTHER: 'another'}
        place = self.add()
        self.native.uids = {}
        self.again()
        self.native.asked.clear()
        self.assertEqual(b'abc', b''.join(
            self.stores['slow'].get(place)[0]))
        self.assertEqual(3, self.stores['slow'].get_size(place))
        self.stores['slow'].delete(place)
        self.assertEqual([], self.native.asked)

    def test_the_first_bytes_of_an_image_that_was_just_deleted(self):
        self.native.uids = {OTHER: 'another'}
        place = self.add()
        self.native.elsewhere = {OTHER: {}}
        self.native.failures['read'] = fake_native.Error(
            'gone', 'NOT_FOUND', 'IMAGE_NOT_FOUND')
        self.assertRaises(exceptions.NotFound, self.stores['fast'].get, place)
        self.native.uids = {}
        self.again()
        with self.assertRaises(exceptions.RemoteServiceUnavailable) as caught:
            self.stores['fast'].get(place)
        self.assertIn(SAME, str(caught.exception))

    def test_two_clusters(self):
        self.native.uids = {OTHER: 'another'}
        self.assert_not_found('fast')
        self.assert_not_found('slow')

    def test_two_rows_of_one_file(self):
        """Glance deletes the image by one and by the other, and keeps it
        where one of the two fails."""
        for error in (None, fake_native.Error('in the index', 'UNAVAILABLE',
                                              'NO_TOMBSTONE_COPY')):
            self.native.uids = {OTHER: 'another'}
            self.again()
            place = self.add()
            image = place.store_location.image_id
            self.native.uids = {}
            self.again()
            if error is None:
                self.stores['fast'].delete(place)
            else:
                self.native.failures['delete'] = error
                self.assertRaises(getattr(exceptions, LATE_DELETE),
                                  self.stores['fast'].delete, place)
                del self.native.images[image]
                # It is not done before a directory has it.
                self.assertRaises(getattr(exceptions, LATE_DELETE),
                                  self.stores['slow'].delete, place)
                self.native.failures.clear()
            self.assertRaises(exceptions.NotFound,
                              self.stores['slow'].delete, place)
            # Of another image of that id nothing is known by it.
            self.assertRaises(getattr(exceptions, LATE_DELETE),
                              self.stores['slow'].delete, self.where(image))

    def test_a_delete_that_failed_says_nothing(self):
        self.native.uids = {OTHER: 'another'}
        place = self.add()
        self.native.uids = {}
        self.again()
        self.native.failures['delete'] = fake_native.Error(
            'goes on', 'ABORTED', 'UPLOAD_IN_PROGRESS')
        self.assertRaises(exceptions.InUseByStore,
                          self.stores['fast'].delete, place)
        self.native.failures.clear()
        self.native.images.clear()
        self.assert_refused('fast', place, SAME)

    def test_one_store_alone_asks_nobody(self):
        _, self.stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT},
            disk={'type': 'file', 'filesystem_store_datadir': '/tmp'})
        self.assert_not_found('fast')
        self.assertEqual([], self.native.asked)

    def test_a_neighbour_that_is_away_keeps_nobody_waiting(self):
        self.native.away = {OTHER}
        began = self.clock.now
        self.assert_not_found('fast')
        self.assertEqual(began, self.clock.now)
        self.assertEqual(1, self.native.asked.count(OTHER), 'once in 30 s')
        # What it said before counts still.
        self.native.away = set()
        with mock.patch.object(neighbours.time, 'monotonic', lambda: 1e9):
            self.assert_refused('fast', self.where(), SAME)
            self.native.away = {OTHER}
            self.assert_refused('fast', self.where(), SAME)
        # Unless it has another cluster now.
        self.native.away = set()
        self.native.uids = {OTHER: 'another'}
        with mock.patch.object(neighbours.time, 'monotonic', lambda: 2e9):
            self.assert_not_found('fast')

    def test_a_neighbour_that_is_away_hides_no_other(self):
        _, self.stores = environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT},
            gone={'type': 'predella', 'predella_endpoint': OTHER},
            slow={'type': 'predella', 'predella_endpoint': ENDPOINT + '3'})
        self.native.away = {OTHER}
        self.assert_refused('fast', self.where(), 'fast and slow reach')
        # Nor while it is not asked again.
        third = ENDPOINT + '3'
        self.native.uids = {third: 'another'}
        self.assert_not_found('fast')
        place = self.add()
        self.native.elsewhere = {third: self.native.images}
        self.native.images = {}
        self.assert_refused('fast', place, 'lies in the cluster of slow')

    def test_a_neighbour_whose_section_is_wrong(self):
        """It is refused for that, and nobody else."""
        for section in ({}, {'predella_endpoint': ''},
                        {'predella_endpoint': 'nonsense'},
                        {'predella_endpoint': 'unix:$nosuch/c'},
                        {'predella_endpoint': OTHER,
                         'multifilesystem_store_datadir': ['/a:x']}):
            with self.subTest(section):
                self.native.uids = {OTHER: 'another'}
                _, self.stores = environment.make_stores(
                    slow={'type': 'predella', **section},
                    fast={'type': 'predella', 'predella_endpoint': ENDPOINT})
                place = self.add()
                self.stores['fast'].delete(place)
                self.assert_not_found('fast')
                self.assertRaises(exceptions.StoreAddDisabled, self.add,
                                  'slow')

    def test_its_own_cluster_that_cannot_be_asked(self):
        self.native.failures['cluster'] = fake_native.Error('away')
        self.assert_refused('fast', self.where(), 'away')

    def test_endpoints_that_are_mixed_up(self):
        self.native.uids = {OTHER: 'another'}
        place = self.add()
        self.native.elsewhere = {OTHER: self.native.images}
        self.native.images = {}
        self.again()
        self.assert_refused('fast', place, 'lies in the cluster of slow')
        # Another image of the same id, as copy-image makes it, is none.
        self.assert_not_found('fast', self.where(
            place.store_location.image_id))
        # What cannot be asked is not known.
        self.native.failures['stat'] = fake_native.Error(
            'away', 'UNAVAILABLE', 'MOUNTS_MISSING')
        self.assertRaises(exceptions.NotFound, self.stores['fast'].get, place)

    def test_another_cluster_than_before(self):
        self.native.uids = {OTHER: 'another'}
        self.add()
        self.assert_not_found('fast')
        self.native.uids[ENDPOINT] = 'a new one'
        self.assert_refused(
            'fast', self.where(), f'fast reached cluster {self.native.uid} '
            'before, and reaches a new one now')
        self.again()
        self.assert_not_found('fast')


if __name__ == '__main__':
    unittest.main()
