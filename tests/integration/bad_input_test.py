"""Bad input at the wire: every call that takes an id, and every way to get
the write stream wrong. Nothing of it may become visible or stay behind."""
import base64
import unittest
import uuid

from cluster import MIB, ClusterTest, random_bytes, wait_until
from probe import (OpenCall, call, chunk, commit, crc32c, grpcurl, header,
                   socket_of)

MALFORMED = ('', 'x', '../../etc/passwd', 'images/../../x', 'images/',
             'uploads/../x', '/etc/passwd', 'A' * 36, 'a' * 5000,
             '7F4C0C1E-3A52-4F0E-9A53-0C5F3F9F2B11',
             '7f4c0c1e-3a52-4f0e-9a53-0c5f3f9f2b1', 'mounts/a/b',
             '7f4c0c1e-3a52-4f0e-9a53-0c5f3f9f2b11\n',
             '00000000-0000-0000-0000-000000000000')
UNKNOWN = str(uuid.UUID(int=0x7f4c0c1e3a524f0e9a530c5f3f9f2b11))
DATA = b'0123456789' * 100
CRC = crc32c(DATA)


class ProbeTest(ClusterTest):
    priorities = (100, 200)

    def setUp(self):
        if not grpcurl():
            self.skipTest('grpcurl is not here')
        super().setUp()
        self.injected = 0

    def tearDown(self):
        print(f'injected {self.injected}')
        self.assertGreater(self.injected, 0, 'nothing was injected')

    def ask(self, method, message):
        return call(f'{self.cluster.sockets}/c', method, message)

    def expect(self, answer, code, reason):
        self.injected += 1
        self.assertEqual((answer.code, answer.reason), (code, reason), answer)
        self.assertGreater(len(answer.message), 20, answer)

    def upload(self, **changes):
        answer = self.ask('ImageService/StartUpload', {
            'image': f'images/{uuid.uuid4()}', 'upload_id': str(uuid.uuid4()),
            **changes})
        self.assertEqual(answer.code, 'OK', answer)
        return answer.responses[0]

    def write(self, upload, *messages):
        return call(socket_of(upload), 'ChunkService/WriteImage', *messages)

    def assert_invisible(self, upload):
        stat = self.ask('ImageService/GetImage', {'name': upload['image']})
        self.assertEqual(stat.reason, 'IMAGE_NOT_FOUND', stat)
        for name in self.cluster.paths:
            self.assertEqual(self.cluster.files(name), [])


class NameTest(ProbeTest):
    def test_malformed_names_in_every_call(self):
        for bad in MALFORMED:
            with self.subTest(name=bad):
                self.expect(self.ask('ImageService/GetImage', {'name': bad}),
                            'INVALID_ARGUMENT', 'INVALID_ARGUMENT')
        for bad in ('', 'uploads/../x', '../../etc/passwd',
                    str(uuid.UUID(int=0))):
            for method, message in (
                    ('ImageService/DeleteImage', {'name': bad}),
                    ('ImageService/DeleteImage',
                     {'name': bad, 'allow_missing': True}),
                    ('ImageService/GetUpload', {'name': bad}),
                    ('ImageService/AbortUpload', {'name': bad}),
                    ('ImageService/StartUpload',
                     {'image': bad, 'upload_id': UNKNOWN}),
                    ('ImageService/StartUpload',
                     {'image': UNKNOWN, 'upload_id': bad})):
                with self.subTest(method=method, name=bad):
                    self.expect(self.ask(method, message), 'INVALID_ARGUMENT',
                                'INVALID_ARGUMENT')
        for bad in ('', 'mounts/../x', 'a' * 64):
            for method in ('GetMount', 'CordonMount', 'UncordonMount',
                           'MaintainMount', 'RetireMount'):
                with self.subTest(method=method, name=bad):
                    self.expect(
                        self.ask(f'MountService/{method}', {'name': bad}),
                        'INVALID_ARGUMENT', 'INVALID_ARGUMENT')
        for name in self.cluster.paths:
            self.assertEqual(self.cluster.files(name), [])
            self.assertEqual(self.cluster.inflight(name), [])

    def test_unknown_names_in_every_call(self):
        for method, message, reason in (
                ('ImageService/GetImage', {'name': UNKNOWN},
                 'IMAGE_NOT_FOUND'),
                ('ImageService/DeleteImage', {'name': UNKNOWN},
                 'IMAGE_NOT_FOUND'),
                ('ImageService/GetUpload', {'name': UNKNOWN},
                 'UPLOAD_NOT_FOUND'),
                ('ImageService/AbortUpload', {'name': UNKNOWN},
                 'UPLOAD_NOT_FOUND'),
                ('ImageService/ListImages', {'mount': 'mounts/none'},
                 'MOUNT_NOT_FOUND'),
                ('MountService/GetMount', {'name': 'none'}, 'MOUNT_NOT_FOUND'),
                ('MountService/CordonMount', {'name': 'none'},
                 'MOUNT_NOT_FOUND'),
                ('MountService/UncordonMount', {'name': 'none'},
                 'MOUNT_NOT_FOUND'),
                ('MountService/MaintainMount',
                 {'name': 'none', 'until_time': '2100-01-01T00:00:00Z'},
                 'MOUNT_NOT_FOUND'),
                ('MountService/RetireMount', {'name': 'none'},
                 'MOUNT_NOT_FOUND')):
            with self.subTest(method=method):
                self.expect(self.ask(method, message), 'NOT_FOUND', reason)
        # Allowed to be missing: success, and nothing to find afterwards.
        answer = self.ask('ImageService/DeleteImage',
                          {'name': UNKNOWN, 'allow_missing': True})
        self.assertEqual(answer.code, 'OK', answer)

    def test_numbers_out_of_range(self):
        for method, message in (
                ('ImageService/ListImages', {'page_size': -1}),
                ('ImageService/ListImages', {'page_token': 'garbage'}),
                ('MountService/ListMounts', {'page_size': -1}),
                ('MountService/ListMounts', {'page_token': 'garbage'}),
                ('ClusterService/ExplainPlacement', {'size_bytes': -1}),
                ('ImageService/StartUpload',
                 {'image': UNKNOWN, 'upload_id': UNKNOWN, 'size_bytes': -1})):
            with self.subTest(method=method, message=message):
                self.expect(self.ask(method, message), 'INVALID_ARGUMENT',
                            'INVALID_ARGUMENT')


class StreamTest(ProbeTest):
    """Each stream on an upload of its own, announced with 1,000 bytes."""

    def refused(self, code, reason, *messages, **announced):
        """`messages` are functions of the upload, or messages."""
        upload = self.upload(**(announced or {'size_bytes': len(DATA)}))
        answer = self.write(upload, *(m(upload) if callable(m) else m
                                      for m in messages))
        self.expect(answer, code, reason)
        self.assertFalse(any('result' in r for r in answer.responses), answer)
        self.assert_invisible(upload)
        return upload

    def test_order_of_messages(self):
        bad = ('INVALID_ARGUMENT', 'INVALID_ARGUMENT')
        self.refused(*bad)
        self.refused(*bad, chunk(0, DATA, CRC))
        self.refused(*bad, commit(0))
        self.refused(*bad, {})
        self.refused(*bad, header, header)
        self.refused(*bad, header, chunk(0, DATA, CRC), {})
        self.refused('CANCELLED', 'UPLOAD_ABORTED', header)
        self.refused('CANCELLED', 'UPLOAD_ABORTED', header,
                     chunk(0, DATA, CRC))

    def test_offsets(self):
        half = len(DATA) // 2
        for offset in (1, half - 1, half + 1, 0):
            with self.subTest(offset=offset):
                self.refused('OUT_OF_RANGE', 'OFFSET_MISMATCH', header,
                             chunk(0, DATA[:half]),
                             chunk(offset, DATA[:100]))
        for offset in (-1, -1 << 62, len(DATA), 1 << 62, (1 << 63) - 1):
            with self.subTest(offset=offset):
                self.refused('OUT_OF_RANGE', 'SIZE_MISMATCH', header,
                             chunk(offset, DATA))

    def test_offsets_of_unknown_size(self):
        for offset, reason in ((5, 'OFFSET_MISMATCH'),
                               (100 * MIB, 'OFFSET_MISMATCH'),
                               (1 << 62, 'OFFSET_MISMATCH'),
                               ((1 << 63) - 1, 'SIZE_MISMATCH'),
                               (-5, 'SIZE_MISMATCH')):
            with self.subTest(offset=offset):
                upload = self.upload()
                answer = self.write(upload, header(upload),
                                    chunk(offset, DATA))
                self.expect(answer, 'OUT_OF_RANGE', reason)
                self.assert_invisible(upload)

    def test_oversize_chunks(self):
        for size in (2 * MIB + 1, 3 * MIB):
            with self.subTest(size=size):
                self.refused('INVALID_ARGUMENT', 'CHUNK_TOO_LARGE', header,
                             chunk(0, bytes(size)), size_bytes=8 * MIB)
        # More than a message may have: gRPC itself refuses it, without reason.
        upload = self.upload(size_bytes=8 * MIB)
        answer = self.write(upload, header(upload), chunk(0, bytes(5 * MIB)))
        self.injected += 1
        self.assertEqual(answer.code, 'RESOURCE_EXHAUSTED', answer)
        self.assert_invisible(upload)
        # Exactly 2 MiB are taken.
        data = random_bytes(2 * MIB, 5)
        upload = self.upload(size_bytes=len(data))
        answer = self.write(upload, header(upload), chunk(0, data),
                            commit(len(data)))
        self.assertEqual(answer.code, 'OK', answer)
        self.assert_same(self.cluster.get(upload['image'].split('/')[1]),
                         data, 'the largest chunk')

    def test_checksums(self):
        bad = ('DATA_LOSS', 'CHECKSUM_MISMATCH')
        self.refused(*bad, header, chunk(0, DATA, CRC ^ 1),
                     commit(len(DATA)))
        self.refused(*bad, header, chunk(0, DATA, 0), commit(len(DATA)))
        self.refused(*bad, header, chunk(0, DATA, CRC),
                     commit(len(DATA), CRC ^ 1))

    def test_commits_of_another_size(self):
        bad = ('OUT_OF_RANGE', 'SIZE_MISMATCH')
        for size in (0, len(DATA) - 1, len(DATA) + 1, -1, (1 << 63) - 1):
            with self.subTest(size=size):
                self.refused(*bad, header, chunk(0, DATA, CRC), commit(size))
        # As announced, but less than that was sent.
        self.refused(*bad, header, chunk(0, DATA[:10]), commit(len(DATA)))
        # As sent, but more than that was announced.
        self.refused(*bad, header, chunk(0, DATA[:10]), commit(10))

    def test_messages_after_the_commit(self):
        # Refused or not heard: after the first commit or before, so the image
        # is whole or not there.
        for late in ((chunk(0, b'x' * 1000),), (chunk(len(DATA), b'more'),),
                     (commit(5),), (commit(len(DATA), CRC ^ 1),),
                     (chunk(0, b'x' * 1000), commit(len(DATA)))):
            with self.subTest(late=late):
                upload = self.upload(size_bytes=len(DATA))
                answer = self.write(upload, header(upload),
                                    chunk(0, DATA, CRC),
                                    commit(len(DATA), CRC), *late)
                self.injected += 1
                name = upload['image'].split('/')[1]
                answered = any('result' in r for r in answer.responses)
                if not answered:
                    self.assertNotEqual(answer.code, 'OK', answer)
                    # The commit may be under way; after this it is decided.
                    self.ask('ImageService/AbortUpload',
                             {'name': upload['name']})
                if answered or self.cluster.files('store-1'):
                    self.assert_same(self.cluster.get(name), DATA, 'committed')
                    self.cluster.cli('image', 'rm', name)
                    wait_until('it is removed',
                               lambda: not self.cluster.files('store-1'))
                else:
                    self.assert_invisible(upload)

    def test_hashes(self):
        self.refused('INVALID_ARGUMENT', 'INVALID_ARGUMENT', header,
                     chunk(0, DATA, CRC),
                     {'commit': {'size_bytes': len(DATA), 'hashes': [
                         {'algorithm': 'sha512', 'hex': 'not hex'}]}})


class CapabilityTest(ProbeTest):
    def test_capabilities_of_something_else(self):
        mine, other = (self.upload(size_bytes=len(DATA)) for _ in range(2))
        self.cluster.cli('mount', 'cordon', 'store-1')
        elsewhere = self.upload(size_bytes=len(DATA))
        self.assertNotEqual(elsewhere['target']['mount_uid'],
                            mine['target']['mount_uid'])
        flipped = bytearray(base64.b64decode(mine['write_capability']))
        flipped[-1] ^= 1
        reader = self.put_and_get_capability()
        for what, token in (
                ('none', ''), ('garbage', base64.b64encode(b'x' * 118)),
                ('cut', base64.b64encode(bytes(flipped[:-1]))),
                ('flipped', base64.b64encode(bytes(flipped))),
                ('of another image', other['write_capability']),
                ('of another mount', elsewhere['write_capability']),
                ('to read', reader)):
            with self.subTest(what=what):
                token = token.decode() if isinstance(token, bytes) else token
                self.expect(
                    self.write(mine, header(mine, capability=token),
                               chunk(0, DATA, CRC), commit(len(DATA))),
                    'PERMISSION_DENIED', 'CAPABILITY_INVALID')
        stat = self.ask('ImageService/GetImage', {'name': mine['image']})
        self.assertEqual(stat.reason, 'IMAGE_NOT_FOUND', stat)

    def put_and_get_capability(self):
        image = self.cluster.put(b'readable')
        answer = self.ask('ImageService/GetImage', {'name': image})
        return answer.responses[0]['copies'][0]['read_capability']

    def test_other_generation_image_or_mount_in_the_header(self):
        upload = self.upload(size_bytes=len(DATA))
        epoch, n, nonce = upload['generation'].split('-')
        for changes in ({'generation': f'{epoch}-{int(n) + 1}-{nonce}'},
                        {'generation': f'{int(epoch) + 1}-{n}-{nonce}'},
                        {'image': f'images/{uuid.uuid4()}'},
                        {'upload': f'uploads/{uuid.uuid4()}'},
                        {'mount_uid': str(uuid.uuid4())}):
            with self.subTest(changes=changes):
                answer = self.write(upload, header(upload, **changes),
                                    chunk(0, DATA, CRC), commit(len(DATA)))
                self.injected += 1
                self.assertIn(answer.reason, ('CAPABILITY_INVALID',
                                              'MOUNT_IDENTITY_MISMATCH'),
                              answer)
        for changes in ({'generation': 'x'}, {'generation': ''},
                        {'image': '../x'}, {'upload': '../x'},
                        {'mount_uid': 'x'}):
            with self.subTest(changes=changes):
                self.expect(
                    self.write(upload, header(upload, **changes)),
                    'INVALID_ARGUMENT', 'INVALID_ARGUMENT')
        self.assert_invisible(upload)

    def test_reads_of_something_else(self):
        image, other = (self.cluster.put(d) for d in (b'one', b'two'))
        got = {i: self.ask('ImageService/GetImage', {'name': i}).responses[0]
               for i in (image, other)}
        copy = got[image]['copies'][0]
        good = {'image': f'images/{image}', 'mount_uid': copy['mount_uid'],
                'generation': got[image]['generation'],
                'capability': copy['read_capability']}
        socket = f'{self.cluster.sockets}/store-1'

        def read(**changes):
            return call(socket, 'ChunkService/ReadImage', {**good, **changes})
        self.assertEqual(read().code, 'OK')
        for changes in ({'image': f'images/{other}'},
                        {'generation': got[other]['generation']},
                        {'capability': ''},
                        {'capability': base64.b64encode(b'x').decode()},
                        {'capability':
                         got[other]['copies'][0]['read_capability']}):
            with self.subTest(changes=changes):
                self.expect(read(**changes), 'PERMISSION_DENIED',
                            'CAPABILITY_INVALID')
        for changes in ({'image': '../x'}, {'image': ''}, {'generation': 'x'}):
            with self.subTest(changes=changes):
                self.expect(read(**changes), 'INVALID_ARGUMENT',
                            'INVALID_ARGUMENT')
        for changes in ({'offset': -1}, {'length': -1}, {'offset': 4},
                        {'offset': (1 << 63) - 1, 'length': (1 << 63) - 1}):
            with self.subTest(changes=changes):
                answer = read(**changes)
                self.injected += 1
                self.assertIn(answer.code, ('INVALID_ARGUMENT',
                                            'OUT_OF_RANGE'), answer)
                self.assertIn(answer.reason, ('INVALID_ARGUMENT',
                                              'READ_PAST_END'), answer)


class ExpiredTest(ProbeTest):
    coordinator_args = ('--upload-ttl', '5s')

    def test_expired_capability_while_the_upload_lives(self):
        upload = self.upload(size_bytes=len(DATA))
        held = OpenCall(socket_of(upload), 'ChunkService/WriteImage')
        self.addCleanup(held.kill)
        held.send(header(upload))
        held.send(chunk(0, DATA[:10]))
        wait_until('bytes have arrived',
                   lambda: self.cluster.inflight('store-1'))

        def ran_out():
            answer = self.write(upload, header(upload))
            self.assertIn(answer.reason,
                          ('CAPABILITY_INVALID', 'UPLOAD_IN_PROGRESS'), answer)
            return 'ran out' in answer.message and answer
        self.expect(wait_until('the capability runs out', ran_out),
                    'PERMISSION_DENIED', 'CAPABILITY_INVALID')


class AbandonedTest(ProbeTest):
    """What a client leaves behind is given back."""
    coordinator_args = ('--upload-ttl', '7s')

    def promised(self):
        mounts = self.cluster.cli('mount', 'ls', '-o', 'json').json['mounts']
        return sum(int(m.get('promisedBytes', 0)) for m in mounts)

    def test_uploads_without_commit_expire(self):
        uploads = [self.upload(size_bytes=64 * MIB) for _ in range(3)]
        data = random_bytes(MIB, 1)
        # One never opened, one that ended its stream, one that vanished.
        self.write(uploads[1], header(uploads[1]), chunk(0, data))
        vanishes = OpenCall(socket_of(uploads[2]), 'ChunkService/WriteImage')
        vanishes.send(header(uploads[2]))
        vanishes.send(chunk(0, data))
        wait_until('both have bytes on the mount',
                   lambda: len(self.cluster.inflight('store-1')) >= 2)
        wait_until('the space is promised',
                   lambda: self.promised() >= 180 * MIB)
        vanishes.kill()
        self.injected += 3
        for upload in uploads:
            wait_until('it expires', lambda u=upload: self.ask(
                'ImageService/GetUpload', {'name': u['name']}
                ).responses[0]['state'] == 'UPLOAD_STATE_EXPIRED')
            answer = self.write(upload, header(upload))
            self.assertNotEqual(answer.code, 'OK')
            self.assert_invisible(upload)
        wait_until('the bytes are removed',
                   lambda: not self.cluster.inflight('store-1'))
        wait_until('the promises are given back',
                   lambda: self.promised() == 0)

    def test_second_upload_of_an_id(self):
        first = self.upload(size_bytes=len(DATA))
        stream = OpenCall(socket_of(first), 'ChunkService/WriteImage')
        self.addCleanup(stream.kill)
        stream.send(header(first))
        stream.send(chunk(0, DATA[:10]))
        wait_until('bytes have arrived',
                   lambda: self.cluster.inflight('store-1'))
        again = {'image': first['image'], 'upload_id': str(uuid.uuid4())}
        # More often than the upload's life: an open stream keeps it.
        self.expect(self.ask('ImageService/StartUpload', again), 'ABORTED',
                    'UPLOAD_IN_PROGRESS')
        stream.process.stdin.close()
        stream.process.stdin = None
        ended = stream.end()
        self.assertEqual(ended.reason, 'UPLOAD_ABORTED', ended)
        # At once, not after a heartbeat.
        answer = self.ask('ImageService/StartUpload', again)
        self.assertEqual(answer.code, 'OK', answer)
        second = answer.responses[0]
        self.assertNotEqual(second['generation'], first['generation'])
        late = self.write(first, header(first), chunk(10, DATA[10:]),
                          commit(len(DATA)))
        self.injected += 1
        self.assertNotEqual(late.code, 'OK', late)
        done = self.write(second, header(second), chunk(0, b'second'),
                          commit(6))
        self.assertEqual(done.code, 'OK', done)
        self.assertEqual(self.cluster.get(second['image'].split('/')[1]),
                         b'second')
        wait_until('nothing of the first is left',
                   lambda: not self.cluster.inflight('store-1'))


del ProbeTest

if __name__ == '__main__':
    unittest.main(verbosity=2)
