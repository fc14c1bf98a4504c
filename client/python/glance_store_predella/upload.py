"""One add: from the caller's image_file to a committed image."""
import logging

from glance_store.common import utils
from glance_store import exceptions

from glance_store_predella import errors
from glance_store_predella import native

LOG = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
# For how long an add that failed waits until its data is removed. What is not
# removed then goes when the upload ends or expires; nobody sees it meanwhile.
CLEANUP_SECONDS = 10


def _chunk_reader(image_file):
    """A function that returns the next bytes, and nothing at the end.

    No generator: an exception that passed through one might be another.
    """
    if hasattr(image_file, 'read'):
        return lambda: image_file.read(CHUNK_BYTES)
    chunks = iter(image_file)

    def from_iterator():
        for chunk in chunks:
            if chunk:
                return chunk
        return None
    return from_iterator


class Upload:
    """Used once, by one thread."""

    def __init__(self, client, image_id, size, hashing_algo, verifier,
                 writer):
        self.client = client
        self.image_id = image_id
        self.size = size
        self.verifier = verifier
        self.writer = writer
        self.hashing_algo = hashing_algo
        self.bytes_written = 0
        self.existing = None
        self.handle = None
        # Hashes that the native module does not have are computed here.
        self.hashers = {}
        self.hash_names = []
        for name in dict.fromkeys(('md5', hashing_algo)):
            openssl = native.openssl_name(name)
            if openssl is None:
                self.hashers[name] = utils.get_hasher(name, False)
            else:
                self.hash_names.append((name.lower(), openssl))

    def run(self, image_file):
        """The image, as the service describes it, and {name: hash}."""
        error = native.module().Error
        try:
            self.handle = self.client.start_upload(
                self.image_id, self.size, self.hash_names, self.writer)
            next_chunk = _chunk_reader(image_file)
            while True:
                chunk = next_chunk()
                if not chunk:
                    break
                self._take(chunk)
            return self._commit()
        except error as e:
            self._clean_up()
            raise errors.for_add(e) from e
        except BaseException:
            # The caller's own comes back as it is.
            self._clean_up()
            raise

    def _take(self, chunk):
        self.bytes_written += len(chunk)
        if self.size is not None and self.bytes_written > self.size:
            raise exceptions.Invalid(
                message=f'predella: {self.size} bytes of {self.image_id} '
                        f'were announced, {self.bytes_written} or more came')
        if (self.existing is not None and
                self.bytes_written > self.existing['size']):
            self._refuse_duplicate()
        for hasher in self.hashers.values():
            hasher.update(chunk)
        if self.verifier:
            self.verifier.update(chunk)
        self._write(chunk)

    def _write(self, chunk):
        error = native.module().Error
        native.give_way()
        while True:
            try:
                if self.handle.write(chunk):
                    return
            except error as e:
                self._compare_with_existing(e)
                continue
            native.wait(self.handle.job)

    def _commit(self):
        error = native.module().Error
        if self.size is not None and self.bytes_written != self.size:
            raise exceptions.Invalid(
                message=f'predella: {self.size} bytes of {self.image_id} '
                        f'were announced, {self.bytes_written} came')
        self.handle.finish()
        native.wait(self.handle.job)
        try:
            image = self.handle.result()
        except error as e:
            self._compare_with_existing(e)
            native.wait(self.handle.job)
            image = self.handle.result()
        hashes = self.handle.hashes()
        hashes = {name: hashes.get(name.lower(), '')
                  for name in ('md5', self.hashing_algo)}
        for name, hasher in self.hashers.items():
            hashes[name] = hasher.hexdigest()
        if not all(hashes.values()):
            raise exceptions.BackendException(
                f'predella: no hash of {self.image_id} could be computed')
        if image is None:
            image = self._same_as_existing(hashes)
        if not image['location_key']:
            # Committed, but the coordinator went away before it could say
            # what the location is. The same add again succeeds.
            raise exceptions.StorageWriteDenied(
                message=f'predella: image {self.image_id} is stored, but the '
                        'coordinator is away; send it again')
        return image, hashes

    def _compare_with_existing(self, error):
        """Goes on after IMAGE_EXISTS, to see whether it is the same image.

        Then the answer to an earlier add was lost, and this one succeeds. An
        image that came otherwise is another's, whatever is in it: Glance would
        have two locations of one file, and remove it with one of them.
        """
        if error.reason != 'IMAGE_EXISTS' or self.existing is not None:
            raise error
        call = self.client.stat(self.image_id)
        native.wait(call.job)
        self.existing = call.result()
        if not native.module().is_upload_of(self.existing['upload'],
                                            self.writer):
            raise exceptions.Duplicate(
                message=f'predella: image {self.image_id} exists already, and '
                        'this store did not store it '
                        f'({self.existing["upload"]})')
        if self.size is not None and self.size != self.existing['size']:
            self._refuse_duplicate()
        self.handle.hash_only()

    def _same_as_existing(self, hashes):
        stored = self.existing['hashes']
        common = [name for name in hashes if name.lower() in stored]
        if (not common or self.bytes_written != self.existing['size'] or
                any(stored[name.lower()] != hashes[name] for name in common)):
            self._refuse_duplicate()
        LOG.info('predella: image %s is stored already, with the same size '
                 'and hashes', self.image_id)
        return self.existing

    def _refuse_duplicate(self):
        raise exceptions.Duplicate(
            message=f'predella: image {self.image_id} exists already, with '
                    'other data')

    def _clean_up(self):
        if self.handle is None:
            return
        try:
            self.handle.abort()
            if not native.wait(self.handle.job, CLEANUP_SECONDS):
                LOG.warning('predella: the upload of %s is not removed yet '
                            'after %d s; it goes on in the background, or '
                            'expires', self.image_id, CLEANUP_SECONDS)
        except Exception:
            LOG.exception('predella: the upload of %s is left to expire',
                          self.image_id)
