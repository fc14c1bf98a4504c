"""A native module without threads or a service, for fast tests.

It keeps images in a dictionary, fails where it is told, and is never ready
before it was waited for.
"""
import hashlib
import uuid


class Error(Exception):
    def __init__(self, message, code='UNAVAILABLE', reason='', metadata=None):
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = metadata or {}


class Job:
    """Ready once somebody waited. `after` is done then."""

    def __init__(self, after=None):
        self.after = after
        self.waits = 0
        self.never = False
        self.done = False

    def ready(self):
        return self.done

    def wait(self, seconds):
        assert seconds > 0
        self.waits += 1
        if self.never:
            return False
        self.done = True
        if self.after is not None:
            self.after, after = None, self.after
            after()
        return True

    def again(self, after=None):
        self.done = False
        self.after = after


class Upload:
    def __init__(self, service, image, size, hashes, writer):
        self.service = service
        self.image = image
        self.size = size
        self.writer = writer
        self.hashers = {name: hashlib.new(openssl)
                        for name, openssl in hashes}
        self.data = bytearray()
        self.room = True
        self.error = None
        self.aborted = False
        self.only_hash = False
        self.finished = None
        self.job = Job(self._start)

    def _fail(self, operation):
        error = self.service.failures.get(operation)
        if error is not None:
            self.error = error

    def _start(self):
        self._fail('start')
        if self.error is None and self.image in self.service.images:
            self.error = Error('it exists', 'ALREADY_EXISTS', 'IMAGE_EXISTS')

    def write(self, data):
        data = bytes(data)
        if self.job.done:
            self._fail('write')
        if self.error is not None and not self.only_hash:
            raise self.error
        if not self.room:
            self.room = self.job.done
            return False
        # Every second piece finds no room at first.
        self.room = False
        self.job.again(self.job.after)
        self.data += data
        for hasher in self.hashers.values():
            hasher.update(data)
        return True

    def finish(self):
        self.job.again(self._commit)

    def _commit(self):
        self._start()
        self._fail('commit')
        if self.error is None:
            self.finished = self.service.keep(
                self.image, bytes(self.data), self.hashes(), self.writer)

    def abort(self):
        self.aborted = True
        self.service.aborted.append(self.image)
        self.job.again()
        self.job.never = self.service.never_cleaned

    def hash_only(self):
        self.only_hash = True

    def result(self):
        assert self.job.done
        if self.only_hash:
            return None
        if self.error is not None:
            raise self.error
        return self.finished

    def hashes(self):
        return {name: hasher.hexdigest()
                for name, hasher in self.hashers.items()}


class Reader:
    def __init__(self, service, found, offset, length):
        self.service = service
        self.found = found
        self.offset = offset
        self.length = length
        self.asked = []
        self.closed = False
        self.job = Job()
        service.readers.append(self)

    def image(self):
        assert self.job.done
        if 'open' in self.service.failures:
            raise self.service.failures['open']
        if self.found is None:
            raise Error('no such image', 'NOT_FOUND', 'IMAGE_NOT_FOUND')
        if self.offset + self.length > self.found['size']:
            raise Error('past the end', 'OUT_OF_RANGE', 'READ_PAST_END')
        self.data = self.service.data[self.found['name']][self.offset:]
        return self.found

    def ask(self, size):
        assert not self.closed
        self.asked.append(size)
        if len(self.asked) == 1:
            self.job.again()

    def take(self):
        assert self.job.done and self.asked
        if (self.offset >= self.service.read_fails_at and
                'read' in self.service.failures):
            raise self.service.failures['read']
        size = self.asked.pop(0)
        assert len(self.data) >= size, 'more was asked for than is left'
        data, self.data = self.data[:size], self.data[size:]
        self.offset += size
        self.job.again()
        return data

    def close(self):
        self.closed = True


class Call:
    def __init__(self, service, operation, act):
        self.service = service
        self.operation = operation
        self.act = act
        self.job = Job()
        self.job.never = operation in service.hang

    def result(self):
        assert self.job.done
        if self.operation in self.service.failures:
            raise self.service.failures[self.operation]
        return self.act()


class Client:
    def __init__(self, service, endpoint, write_timeout, read_timeout,
                 local_reads):
        if not endpoint.startswith('unix:/'):
            raise Error(f'{endpoint} is no address', 'INVALID_ARGUMENT',
                        'INVALID_ARGUMENT')
        self.service = service
        self.endpoint = endpoint
        self.timeouts = (write_timeout, read_timeout)
        self.local_reads = local_reads

    def start_upload(self, image, size, hashes, writer):
        upload = Upload(self.service, image, size, hashes, writer)
        self.service.uploads.append(upload)
        return upload

    def read(self, image, offset, length):
        return Reader(self.service, self._images().get(image), offset, length)

    def _images(self):
        return self.service.elsewhere.get(self.endpoint, self.service.images)

    def _find(self, image):
        if image not in self._images():
            raise Error('no such image', 'NOT_FOUND', 'IMAGE_NOT_FOUND')
        return self._images()[image]

    def stat(self, image):
        return Call(self.service, 'stat', lambda: self._find(image))

    def cluster(self):
        def act():
            if self.endpoint in self.service.away:
                raise Error('away')
            return {'cluster_uid': self.service.uids.get(
                self.endpoint, self.service.uid)}
        self.service.asked.append(self.endpoint)
        return Call(self.service, 'cluster', act)

    def mounts(self):
        return Call(self.service, 'mounts',
                    lambda: {'mounts': self.service.mounts})

    def delete(self, image, generation):
        def act():
            found = self._find(image)
            if found['generation'] != generation:
                raise Error('another', 'ABORTED', 'GENERATION_MISMATCH')
            del self._images()[image]
            return {}
        return Call(self.service, 'delete', act)


class FakeNative:
    """The module, and the service behind it."""

    Error = Error

    def __init__(self):
        self.uid = str(uuid.uuid4())
        self.uids = {}  # of endpoints that lead to other clusters
        self.away = set()  # endpoints
        self.asked = []
        self.mounts = []
        self.images = {}
        self.elsewhere = {}  # of other endpoints: their images
        self.data = {}
        self.failures = {}  # by the operations' names
        self.read_fails_at = 0
        self.hang = set()
        self.never_cleaned = False
        self.unknown_hashes = set()
        self.uploads = []
        self.readers = []
        self.aborted = []

    def Client(self, endpoint, write_timeout, read_timeout, local_reads):
        return Client(self, endpoint, write_timeout, read_timeout, local_reads)

    def has_hash(self, openssl):
        return openssl not in self.unknown_hashes

    @staticmethod
    def is_upload_of(upload, writer):
        return upload == f'uploads/of {writer}'

    def keep(self, image, data, hashes, writer=''):
        key = uuid.uuid4()
        self.images[image] = {
            'name': f'images/{image}', 'generation': key.hex[:8],
            'size': len(data), 'hashes': hashes, 'location_key': key.hex,
            'upload': f'uploads/of {writer}'}
        self.data[f'images/{image}'] = data
        return self.images[image]
