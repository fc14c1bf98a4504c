"""What the driver does, whatever is under it: run on the fake and on daemons.

Whoever inherits sets `store`, `conf` and BACKEND in setUp.
"""
import hashlib
import io
import random
import uuid

from glance_store import capabilities
from glance_store import exceptions

import environment

MIB = 1 << 20


class Interrupted(BaseException):
    """As eventlet ends a green thread."""


class Short(io.BytesIO):
    """Returns less than it was asked for."""

    def read(self, size=-1):
        return super().read(min(size, 4096 + 7) if size > 0 else size)


class Breaks:
    """An image_file that ends with an exception after some bytes."""

    def __init__(self, data, error):
        self.data = io.BytesIO(data)
        self.error = error

    def read(self, size):
        chunk = self.data.read(size)
        if not chunk:
            raise self.error
        return chunk


class Verifier:
    def __init__(self, error=None):
        self.seen = bytearray()
        self.error = error

    def update(self, chunk):
        if self.error is not None:
            raise self.error
        self.seen += chunk


class Behaviour:
    BACKEND = 'fast'

    def data(self, size):
        return random.Random(size).randbytes(size)

    def add(self, data, size=0, image=None, algorithm='sha512', **kwargs):
        """(image id, what add returned)."""
        image = image or str(uuid.uuid4())
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        return image, self.store.add(image, source, size, algorithm, **kwargs)

    def where(self, uri):
        return environment.where(self.conf, uri, self.BACKEND)

    def read(self, uri, **kwargs):
        chunks, size = self.store.get(self.where(uri), **kwargs)
        data = b''.join(chunks)
        if 'offset' not in kwargs:
            self.assertEqual(len(data), size)
        return data

    def assert_same(self, got, want):
        # Not assertEqual: it would print megabytes.
        if got != want:
            self.fail(f'{len(got)} bytes with sha256 '
                      f'{hashlib.sha256(got).hexdigest()}, wanted {len(want)} '
                      f'with {hashlib.sha256(want).hexdigest()}')

    def assert_nothing_left(self, image):
        """Neither visible nor in the way: the id can be added at once."""
        _, result = self.add(b'afterwards', image=image)
        self.assertEqual(b'afterwards', self.read(result[0]))

    def test_sizes_known_and_unknown(self):
        for size in (0, 1, 64 * 1024 - 1, MIB, 8 * MIB + 1):
            for announced in {0, size}:
                with self.subTest(size=size, announced=announced):
                    data = self.data(size)
                    image, result = self.add(data, announced)
                    uri, written, md5, multihash, metadata = result
                    self.assertEqual(size, written)
                    self.assertEqual(hashlib.md5(data).hexdigest(), md5)
                    self.assertEqual(hashlib.sha512(data).hexdigest(),
                                     multihash)
                    self.assertEqual({'store': self.BACKEND}, metadata)
                    self.assertRegex(
                        uri, f'^predella://{self.BACKEND}/{image}/'
                             '[0-9a-f]{32}$')
                    self.assert_same(self.read(uri), data)
                    self.assertEqual(size,
                                     self.store.get_size(self.where(uri)))

    def test_size_may_be_none(self):
        _, result = self.add(b'abc', None)
        self.assertEqual(3, result[1])

    def test_every_hash_of_hashlib(self):
        data = self.data(100_000)
        for name in sorted(hashlib.algorithms_guaranteed):
            if name.startswith('shake'):
                continue  # has no hexdigest() without a length
            with self.subTest(name):
                result = self.add(data, algorithm=name)[1]
                self.assertEqual(hashlib.new(name, data).hexdigest(),
                                 result[3])
                self.assertEqual(hashlib.md5(data).hexdigest(), result[2])

    def test_old_callers_get_four_values(self):
        image = str(uuid.uuid4())
        uri, written, md5, metadata = self.store.add(
            image, io.BytesIO(b'abc'), 3)
        self.assertEqual((3, hashlib.md5(b'abc').hexdigest()), (written, md5))
        self.assertEqual(self.BACKEND, metadata['store'])
        self.assertEqual(b'abc', self.read(uri))

    def test_iterables_and_short_reads(self):
        data = self.data(300_000)
        buffer = bytearray(data)

        def reused():
            # Whoever yields a buffer may change it afterwards.
            piece = bytearray(1000)
            for i in range(0, len(data), 1000):
                piece[:] = data[i:i + 1000]
                yield piece
        sources = {
            'generator': (data[i:i + 7777] for i in range(0, 300_000, 7777)),
            'list': [data[:5], b'', data[5:]],
            'memoryview': iter([memoryview(data)[:9], memoryview(buffer)[9:]]),
            'the same bytearray again and again': reused(),
            'short reads': Short(data),
        }
        for name, source in sources.items():
            with self.subTest(name):
                result = self.add(source)[1]
                self.assertEqual(len(data), result[1])
                self.assertEqual(hashlib.sha512(data).hexdigest(), result[3])
                self.assert_same(self.read(result[0]), data)

    def test_exceptions_of_the_caller_come_back_unchanged(self):
        for size in (0, 1, 3 * MIB + 5):
            for error in (ValueError('broken chunk'), OSError('client left'),
                          StopIteration('odd'), exceptions.NotFound(),
                          Interrupted(), KeyboardInterrupt()):
                for announced in (0, 10 * MIB):
                    with self.subTest(size=size, error=error):
                        image = str(uuid.uuid4())
                        source = Breaks(self.data(size), error)
                        with self.assertRaises(type(error)) as caught:
                            self.add(source, announced, image)
                        self.assertIs(error, caught.exception)
                        self.assert_nothing_left(image)

    def test_exception_of_an_iterator(self):
        error = RuntimeError('of the generator')

        def breaks():
            yield b'some'
            raise error
        image = str(uuid.uuid4())
        with self.assertRaises(RuntimeError) as caught:
            self.add(breaks(), image=image)
        self.assertIs(error, caught.exception)
        self.assert_nothing_left(image)

    def test_what_is_no_data_is_refused(self):
        image = str(uuid.uuid4())
        self.assertRaises(TypeError, self.add, ['text'], image=image)
        self.assert_nothing_left(image)

    def test_too_much_and_too_little(self):
        for announced, size in ((10, 9), (10, 11), (3 * MIB, MIB),
                                (MIB, 9 * MIB), (10, 0)):
            with self.subTest(announced=announced, size=size):
                image = str(uuid.uuid4())
                self.assertRaises(exceptions.Invalid, self.add,
                                  self.data(size), announced, image)
                self.assert_nothing_left(image)

    def test_too_much_is_not_read_to_its_end(self):
        class Endless:
            sent = 0

            def read(self, size):
                self.sent += size
                assert self.sent < 64 * MIB
                return bytes(size)
        self.assertRaises(exceptions.Invalid, self.add, Endless(), 2 * MIB)

    def test_ids_in_upper_case(self):
        """Glance lets users choose them, beside the same in lower case."""
        image, _ = self.add(b'abc')
        for other in (image.upper(), image[:-1] + 'A',
                      image.replace('-', ''), ''):
            for what in (b'abc', b'other'):
                with self.assertRaises(exceptions.Invalid) as caught:
                    self.add(what, image=other) if other else self.store.add(
                        other, io.BytesIO(what), 0, 'sha512')
                # What Glance answers with 400.
                self.assertIsInstance(caught.exception, ValueError)
                self.assertIn('a UUID in lower case', str(caught.exception))

    def test_negative_size(self):
        self.assertRaises(exceptions.Invalid, self.add, b'abc', -3)

    def test_verifier(self):
        data = self.data(2 * MIB + 3)
        verifier = Verifier()
        self.add(data, verifier=verifier)
        self.assert_same(bytes(verifier.seen), data)
        error = RuntimeError('of the verifier')
        image = str(uuid.uuid4())
        with self.assertRaises(RuntimeError) as caught:
            self.add(data, image=image, verifier=Verifier(error))
        self.assertIs(error, caught.exception)
        self.assert_nothing_left(image)

    def test_the_same_add_again_succeeds(self):
        data = self.data(2 * MIB + 1)
        image, first = self.add(data)
        for announced in (0, len(data)):
            verifier = Verifier()
            self.assertEqual(first, self.add(data, announced, image,
                                             verifier=verifier)[1])
            self.assert_same(bytes(verifier.seen), data)
        # The hash that both have decides where the other is another.
        again = self.add(data, image=image, algorithm='sha256')[1]
        self.assertEqual(first[0], again[0])
        self.assertEqual(hashlib.sha256(data).hexdigest(), again[3])

    def test_another_image_of_the_same_id_is_a_duplicate(self):
        data = self.data(2 * MIB + 1)
        image, first = self.add(data)
        other = bytes([data[0] ^ 1]) + data[1:]
        for what in (other, data[:-1], data + b'x', b'', self.data(20 * MIB)):
            for announced in {0, len(what)}:
                with self.subTest(size=len(what), announced=announced):
                    self.assertRaises(exceptions.Duplicate, self.add, what,
                                      announced, image)
        self.assert_same(self.read(first[0]), data)

    def test_ranges(self):
        data = self.data(3 * MIB + 11)
        uri = self.add(data)[1][0]
        for offset, length in ((0, 1), (0, len(data)), (1, 5), (MIB - 1, 2),
                               (MIB, MIB), (MIB + 3, 2 * MIB), (3 * MIB, 11),
                               (len(data) - 1, 1)):
            with self.subTest(offset=offset, length=length):
                chunks, size = self.store.get(
                    self.where(uri), offset=offset, chunk_size=length)
                self.assertEqual(length, size)
                self.assert_same(b''.join(chunks),
                                 data[offset:offset + length])
        self.assert_same(self.read(uri, offset=2 * MIB), data[2 * MIB:])
        self.assertRaises(exceptions.Invalid, self.store.get, self.where(uri),
                          offset=len(data), chunk_size=1)

    def test_missing_is_said_at_the_call(self):
        image, result = self.add(b'abc')
        place = self.where(result[0])
        self.store.delete(place)
        self.assertRaises(exceptions.NotFound, self.store.get, place)
        self.assertRaises(exceptions.NotFound, self.store.get_size, place)
        self.assertRaises(exceptions.NotFound, self.store.delete, place)
        self.assert_nothing_left(image)

    def test_a_wrong_key_is_refused(self):
        uri = self.add(b'abc')[1][0]
        key = uri.rsplit('/', 1)[1]
        for wrong in ('0' * 32, key[:-1] + ('0' if key[-1] != '0' else '1')):
            place = self.where(uri[:-32] + wrong)
            self.assertRaises(exceptions.BadStoreUri, self.store.get, place)
            self.assertRaises(exceptions.BadStoreUri, self.store.get_size,
                              place)
            with self.assertRaises(exceptions.Forbidden) as caught:
                self.store.delete(place)
            self.assertNotIn(key, str(caught.exception))
        self.assertEqual(b'abc', self.read(uri))

    def test_an_old_location_does_not_reach_a_new_image(self):
        image, first = self.add(b'first')
        self.store.delete(self.where(first[0]))
        second = self.add(b'second', image=image)[1]
        old = self.where(first[0])
        self.assertRaises(exceptions.BadStoreUri, self.store.get, old)
        self.assertRaises(exceptions.Forbidden, self.store.delete, old)
        self.assertEqual(b'second', self.read(second[0]))

    def test_locations(self):
        uri = self.add(b'abc')[1][0]
        place = self.where(uri)
        self.assertEqual(uri, place.get_store_uri())
        self.assertTrue(uri.startswith(self.store.url_prefix))
        head, image, key = uri.rsplit('/', 2)
        for bad in (f'{head}/{image}', f'{head}/{image}/', uri + '0',
                    f'{head}/{image.upper()}/{key}', f'{head}/{key}/{image}',
                    f'predella:///{image}/{key}', uri + '?x', uri + '\n',
                    f'{head}/../{image}/{key}', f'{head}/{image}/{key}/'):
            with self.subTest(bad):
                with self.assertRaises(exceptions.BadStoreUri) as caught:
                    self.where(bad)
                self.assertNotIn(key, str(caught.exception))

    def test_capabilities(self):
        masks = capabilities.BitMasks
        self.assertTrue(self.store.is_capable(
            masks.READ_RANDOM, masks.WRITE_ACCESS, masks.DRIVER_REUSABLE))
        self.assertFalse(self.store.is_capable(masks.WRITE_OFFSET))

    def test_acls_are_nothing_to_do(self):
        place = self.where(self.add(b'abc')[1][0])
        self.assertRaises(NotImplementedError, self.store.set_acls, place,
                          public=True)

    def test_an_abandoned_download_is_closed(self):
        uri = self.add(self.data(20 * MIB))[1][0]
        chunks, _ = self.store.get(self.where(uri))
        next(chunks)
        chunks.close()
        self.assertRaises(StopIteration, next, chunks)
