"""What the driver waits for, and for how long."""
import io
import os
import re
import threading
import time
import unittest
import uuid

import environment
import fake_native

from glance_store import exceptions

from cluster import ClusterTest
from cluster import wait_until
from driver_fake_test import ENDPOINT
from driver_fake_test import FakeCase
from driver_fake_test import LATE_DELETE
from driver_fake_test import TABLE
from glance_store_predella import options


class Reads:
    """Of `store` and `conf`."""

    def add_to(self, store):
        return store.add(str(uuid.uuid4()), io.BytesIO(b'abc'), 3, 'sha512')

    def where(self, uri):
        return environment.where(self.conf, uri, 'fast')

    def read(self, uri):
        return b''.join(self.store.get(self.where(uri))[0])


class FakeTest(Reads, FakeCase):
    def configured(self, **options):
        return environment.make_stores(
            fast={'type': 'predella', 'predella_endpoint': ENDPOINT,
                  **options})[1]['fast']

    def test_a_service_that_is_away_for_a_while_costs_nothing(self):
        def back():
            self.native.failures.clear()
        uri = self.add_to(self.store)[0]
        place = self.where(uri)
        late = getattr(exceptions, LATE_DELETE)
        for operation, ask, refusal in (
                ('open', lambda: self.assertEqual(b'abc', self.read(uri)),
                 exceptions.RemoteServiceUnavailable),
                ('stat', lambda: self.store.get_size(place),
                 exceptions.RemoteServiceUnavailable),
                ('stat', lambda: self.store.delete(place), late),
                ('delete', lambda: self.store.delete(place), late)):
            place = self.where(self.add_to(self.store)[0])
            for reason in ('', 'NOT_READY'):
                error = fake_native.Error('away', reason=reason)
                self.native.failures[operation] = error
                began = self.clock.now
                with self.subTest(operation=operation):
                    self.assertRaises(refusal, ask)
                    self.assertEqual(30, self.clock.now - began)
            self.clock.then[self.clock.now + 29] = back
            ask()
            self.assertEqual({}, self.native.failures)

    def test_a_delete_whose_answer_was_lost(self):
        """Asked again it is gone, which Glance is told."""
        place = self.where(self.add_to(self.store)[0])
        self.native.failures['delete'] = fake_native.Error('away')

        def back():
            self.native.failures.clear()
            self.native.images.clear()
        self.clock.then[self.clock.now + 1] = back
        self.assertRaises(exceptions.NotFound, self.store.delete, place)

    def test_the_first_upload_of_a_process_waits_as_any(self):
        for question in ('cluster', 'mounts'):
            store = self.configured(multifilesystem_store_datadir=['/a'])
            self.native.failures[question] = fake_native.Error('away')
            self.clock.then[self.clock.now + 59] = self.native.failures.clear
            self.add_to(store)
            self.assertEqual({}, self.native.failures)

    def test_no_more_is_waited_than_for_who_is_away(self):
        store = self.configured()
        began = self.clock.now
        for code, reason in (('UNAVAILABLE', 'INDEX_UNAVAILABLE'),
                             ('FAILED_PRECONDITION', 'NOT_READY')):
            self.native.failures['cluster'] = fake_native.Error(
                'x', code, reason)
            self.assertRaises(exceptions.StorageWriteDenied, self.add_to, store)
        self.assertEqual(began, self.clock.now)


class WordsTest(unittest.TestCase):
    """docs/glance.md and the options' help say the same."""

    def setUp(self):
        with open(TABLE, encoding='utf-8') as stream:
            self.rows = dict(re.findall(
                r'^[|] `([a-z_]+)` [|] (.*) [|]$', stream.read(), re.M))

    def test_every_option_has_its_row(self):
        for option in options.OPTIONS:
            default, _ = self.rows[option.name].split('|', 1)
            self.assertEqual('' if option.default is None
                             else str(option.default), default.strip())

    def test_how_long_is_waited(self):
        for option in options.OPTIONS:
            with self.subTest(option.name):
                self.assertEqual(
                    set(re.findall(r'(\d+) s\b', self.rows[option.name])),
                    set(re.findall(r'(\d+)\s+seconds', option.help)))
        client = os.path.join(environment.SOURCE, 'client', 'include',
                              'predella', 'client_options.h')
        with open(client, encoding='utf-8') as stream:
            text = stream.read()
        for name in ('refused_for', 'stall_timeout'):
            seconds, = re.findall(rf' {name} = absl::Seconds\((\d+)\)', text)
            self.assertIn(f'after {seconds} s',
                          self.rows['predella_write_timeout'])


class ClusterAwayTest(Reads, ClusterTest):
    priorities = (100,)

    def configure(self, **options):
        environment.use_native(None)
        self.conf, stores = environment.make_stores(fast={
            'type': 'predella', 'predella_endpoint': self.cluster.endpoint,
            **options})
        self.store = stores['fast']

    def away(self):
        """The coordinator, for 4 seconds from now on."""
        self.cluster.coordinator.kill()
        back = threading.Timer(4, self.cluster.coordinator.start)
        back.start()
        self.addCleanup(back.join)
        return back

    def test_a_delete_that_no_agent_hears_of(self):
        self.configure()
        place = self.where(self.add_to(self.store)[0])
        agent = self.cluster.agents['store-1']
        agent.kill()
        with self.assertRaises(getattr(exceptions, LATE_DELETE)) as caught:
            self.store.delete(place)
        self.assertIn('is written in the index but on no mount',
                      str(caught.exception))
        # It is not taken back, and not done before a directory has it: were
        # the index lost now, the image would rise, and Glance not know it.
        self.assertRaises(exceptions.NotFound, self.store.get, place)
        with self.assertRaises(getattr(exceptions, LATE_DELETE)):
            self.store.delete(place)
        self.assertEqual(1, len(self.cluster.files('store-1')))
        agent.start()
        self.cluster.wait_ready()
        self.assertRaises(exceptions.NotFound, self.store.delete, place)
        wait_until('the file is removed',
                   lambda: self.cluster.files('store-1') == [])

    def test_everything_goes_on_when_the_coordinator_is_back(self):
        self.configure()
        uri = self.add_to(self.store)[0]
        for ask in (lambda: self.assertEqual(b'abc', self.read(uri)),
                    lambda: self.assertEqual(3, self.store.get_size(
                        self.where(uri))),
                    lambda: self.store.delete(self.where(uri)),
                    # As the first one of a process.
                    lambda: (self.configure(), self.add_to(self.store))):
            back = self.away()
            began = time.monotonic()
            ask()
            self.assertGreater(time.monotonic() - began, 3)
            back.join()
            self.cluster.wait_ready()
        self.assertRaises(exceptions.NotFound, self.store.get,
                          self.where(uri))


if __name__ == '__main__':
    unittest.main()
