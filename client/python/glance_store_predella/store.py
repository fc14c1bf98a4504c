"""The glance_store driver: translates, streams, maps errors."""
import contextlib
import hmac
import logging
import os
import re
import urllib.parse

from glance_store import capabilities
from glance_store import driver
from glance_store import exceptions
from glance_store import location
from oslo_config import cfg

from glance_store_predella import calls
from glance_store_predella import claim
from glance_store_predella import datadirs_option
from glance_store_predella import download
from glance_store_predella import errors
from glance_store_predella import native
from glance_store_predella import neighbours
from glance_store_predella import options
from glance_store_predella import upload

LOG = logging.getLogger(__name__)

SCHEME = 'predella'
# Of a delete: the image is gone from the index all the same.
_DELETED = {'IMAGE_NOT_FOUND', 'NO_TOMBSTONE_COPY'}
# A generation that no image has: the first pair is that of the cluster itself.
_OF_NO_IMAGE = '1-1-00000000'
_UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
_URI = re.compile(f'{SCHEME}://([^/?#@]+)/({_UUID})/([0-9a-f]{{32}})')


def _url_prefix(backend):
    return f'{SCHEME}://{urllib.parse.quote(backend or SCHEME, safe="")}/'


class StoreLocation(location.StoreLocation):
    """predella://BACKEND/IMAGE/KEY

    The key is random, drawn by the service for each upload: whoever knows an
    image's id alone cannot make a location of it.
    """

    def process_specs(self):
        self.prefix = self.specs['prefix']
        self.image_id = self.specs['image_id']
        self.key = self.specs['key']

    def get_uri(self):
        return f'{self.prefix}{self.image_id}/{self.key}'

    def parse_uri(self, uri):
        self.validate_schemas(uri, valid_schemas=(f'{SCHEME}://',))
        match = _URI.fullmatch(uri)
        if match is None:
            # Without the URI: it may bear a key.
            raise exceptions.BadStoreUri(
                message=f'a location is {SCHEME}://BACKEND/IMAGE/KEY, with '
                        'the UUID of the image and 32 hexadecimal digits')
        self.prefix = f'{SCHEME}://{match.group(1)}/'
        self.image_id = match.group(2)
        self.key = match.group(3)


class Store(driver.Store):
    """One cluster of Predella."""

    _CAPABILITIES = (capabilities.BitMasks.READ_RANDOM |
                     capabilities.BitMasks.WRITE_ACCESS |
                     capabilities.BitMasks.DRIVER_REUSABLE)
    OPTIONS = options.OPTIONS

    _client = None
    _datadirs = {}
    _claim = None
    _write_timeout = _read_timeout = 0.0
    _unusable = 'the store was not configured'

    def describe(self):
        """For /v2/info/stores/detail, where our paste filter is in use."""
        config = self._config(self.backend_group)
        # Not thin_provisioning: each directory's agent has it or not.
        return {'endpoint': config.predella_endpoint}

    def get_schemes(self):
        return (SCHEME,)

    def configure_add(self):
        """Dials nothing: Glance forks its workers after this."""
        self._url_prefix = _url_prefix(self.backend_group)
        self._claim = None
        try:
            self._client = self._make_client()
        except Exception as e:
            # Any other exception would stop glance-api.
            self._unusable = str(e)
            raise exceptions.BadStoreConfiguration(
                store_name=self.backend_group or SCHEME, reason=str(e)) from e

    def _make_client(self):
        config = self._config(self.backend_group)
        endpoint = config.predella_endpoint
        if not endpoint:
            raise ValueError(
                'predella_endpoint is not set; "predella serve" prints it and '
                'writes it to /run/predella/endpoint')
        for other in self._other_backends():
            its = self._endpoint_of(other)
            if its and neighbours.same_endpoint(its, endpoint):
                raise ValueError(
                    f'store {other} has the endpoint {its} as well: one '
                    'cluster is one store')
        self._datadirs = datadirs_option.parse(
            config.multifilesystem_store_datadir or [])
        self._write_timeout = float(config.predella_write_timeout)
        self._read_timeout = float(config.predella_read_timeout)
        return native.module().Client(
            endpoint, self._write_timeout, self._read_timeout,
            config.predella_local_reads == 'auto')

    def _config(self, backend):
        grafted = getattr(driver, 'BackendGroupConfiguration', None)
        if backend and grafted is not None:  # glance_store 5.0.0
            return grafted(self.OPTIONS, backend, conf=self.conf)
        return getattr(self.conf, backend or 'glance_store')

    def _endpoint_of(self, other):
        """None where the section of another store does not say it.

        That store is refused for what is wrong there, and this one is not.
        """
        try:
            return self._config(other).predella_endpoint
        except (cfg.Error, ValueError):
            return None

    def _other_backends(self):
        if not self.backend_group:
            return []
        enabled = self.conf.enabled_backends
        return [name for name, kind in enabled.items()
                if kind == SCHEME and name != self.backend_group]

    @driver.back_compat_add
    @capabilities.check
    def add(self, image_id, image_file, image_size, hashing_algo,
            context=None, verifier=None):
        if self._client is None:
            raise exceptions.StoreAddDisabled(message=self._unusable)
        if image_size is not None and image_size < 0:
            raise exceptions.Invalid(
                message=f'predella: an image of {image_size} bytes')
        if not re.fullmatch(_UUID, image_id):
            # Not taken for the same in lower case: to Glance that may be
            # another image.
            raise errors.BadImageId(
                message=f'predella: the id of an image is a UUID in lower '
                        f'case, and {image_id} is none: create the image '
                        'anew, with another id or without one')
        self._claim_cluster()
        # Glance says 0 for a size that it does not know.
        sending = upload.Upload(self._client, image_id, image_size or None,
                                hashing_algo, verifier,
                                f'glance/{self.backend_group or SCHEME}')
        image, hashes = sending.run(image_file)
        uri = StoreLocation({'prefix': self._url_prefix, 'image_id': image_id,
                             'key': image['location_key']}, self.conf,
                            self.backend_group).get_uri()
        LOG.debug('predella: stored image %s, %d bytes', image_id,
                  sending.bytes_written)
        metadata = {}
        if self.backend_group:
            metadata['store'] = self.backend_group
        return (uri, sending.bytes_written, hashes['md5'],
                hashes[hashing_algo], metadata)

    def _claimed(self):
        """The claim of this process: workers are forked after configure."""
        if self._claim is None or self._claim.process != os.getpid():
            self._claim = claim.Claim(
                self.backend_group or SCHEME, self._client,
                {name: self._endpoint_of(name)
                 for name in self._other_backends()})
        return self._claim

    def _claim_cluster(self):
        """Refuses a cluster that another store has under another endpoint."""
        mine = self._claimed()
        mine.before_add(self._write_timeout)
        if not mine.datadirs_compared:
            self._compare_datadirs()
            mine.datadirs_compared = True

    @contextlib.contextmanager
    def _sure(self, wanted, mapping, refusal):
        """Lets NotFound through where it is sure that this cluster is meant."""
        try:
            yield
        except exceptions.NotFound:
            self._claimed().before_not_found(wanted, mapping, refusal,
                                             self._read_timeout)
            raise

    def _compare_datadirs(self):
        """Whoever wrote the option should hear that it is not so."""
        if not self._datadirs:
            return
        mounts = calls.call(
            self._client.mounts, 'the question for the mounts',
            errors.for_add, self._write_timeout)['mounts']
        for said in datadirs_option.differences(self._datadirs, mounts):
            LOG.warning('predella: multifilesystem_store_datadir of %s is not '
                        'what the service has: %s', self.backend_group, said)

    @capabilities.check
    def get(self, location, offset=0, chunk_size=None, context=None):
        wanted = location.store_location
        client = self._usable()

        def opened():
            reader = client.read(wanted.image_id, offset or 0,
                                 chunk_size or 0)
            native.wait(reader.job)
            return reader, reader.image()
        with self._sure(wanted, errors.for_get,
                        exceptions.RemoteServiceUnavailable):
            try:
                reader, image = calls.patiently(opened, self._read_timeout)
            except native.module().Error as e:
                raise errors.for_get(e) from e
            self._check_key(wanted, image)
            length = chunk_size or image['size'] - (offset or 0)
            return (download.ImageChunks(reader, length),
                    chunk_size or image['size'])

    def get_size(self, location, context=None):
        wanted = location.store_location
        client = self._usable()
        with self._sure(wanted, errors.for_get,
                        exceptions.RemoteServiceUnavailable):
            return self._stat(client, wanted, errors.for_get)['size']

    def delete(self, location, context=None):
        """Without capabilities.check: of a store that could not be configured
        it says StoreDeleteNotSupported, and Glance forgets the image."""
        wanted = location.store_location
        client = self._usable(errors.late_delete)

        def mapped(error):
            if error.reason in _DELETED:
                claim.note_deleted(wanted)
            return errors.for_delete(error)

        def delete(generation, mapping):
            calls.call(lambda: client.delete(wanted.image_id, generation),
                       f'the delete of {wanted.image_id}', mapping,
                       self._read_timeout)
        try:
            with self._sure(wanted, errors.for_delete, errors.late_delete):
                image = self._stat(client, wanted, errors.for_delete)
        except exceptions.NotFound:
            # An earlier delete may be in the index and in no directory: it is
            # not done before it is there.
            with contextlib.suppress(exceptions.NotFound):
                delete(_OF_NO_IMAGE, errors.for_delete)
            raise
        # That very image: another may have come under its id meanwhile.
        delete(image['generation'], mapped)
        claim.note_deleted(wanted)

    def _usable(self, refusal=exceptions.RemoteServiceUnavailable):
        if self._client is None:
            raise refusal(message=self._unusable)
        return self._client

    def _stat(self, client, wanted, mapping):
        image = calls.call(lambda: client.stat(wanted.image_id),
                           f'the question for {wanted.image_id}', mapping,
                           self._read_timeout)
        self._check_key(wanted, image,
                        exceptions.Forbidden if mapping is errors.for_delete
                        else exceptions.BadStoreUri)
        return image

    @staticmethod
    def _check_key(wanted, image, refusal=exceptions.BadStoreUri):
        """Not NotFound: the image is there, and Glance would forget it."""
        if not hmac.compare_digest(wanted.key, image['location_key']):
            raise refusal(
                message=f'predella: this is no location of image '
                        f'{wanted.image_id}: its key is another')
