"""The bytes of an image, or of a range of it."""
from glance_store_predella import errors
from glance_store_predella import native

CHUNK_BYTES = 1 << 20
# Some are filled while the caller works on another.
_ASKED_AHEAD = 4


class ImageChunks:
    """Iterates over exactly `length` bytes, or raises.

    The first chunk is read here already, so that damage and absent agents
    are seen while Glance can still turn to another location.
    """

    def __init__(self, reader, length):
        self._reader = reader
        self._left_to_ask = length
        self._outstanding = 0
        self._first = None
        self._ask()
        if self._outstanding:
            self._first = self._take()

    def __iter__(self):
        return self

    def __next__(self):
        if self._first is not None:
            chunk, self._first = self._first, None
            return chunk
        if self._reader is None or not self._outstanding:
            self.close()
            raise StopIteration
        return self._take()

    def close(self):
        """Ends the read; also what happens when this is forgotten."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _ask(self):
        while self._left_to_ask > 0 and self._outstanding < _ASKED_AHEAD:
            size = min(CHUNK_BYTES, self._left_to_ask)
            self._reader.ask(size)
            self._left_to_ask -= size
            self._outstanding += 1

    def _take(self):
        native.give_way()
        native.wait(self._reader.job)
        try:
            chunk = self._reader.take()
        except native.module().Error as e:
            self.close()
            raise errors.for_get(e) from e
        self._outstanding -= 1
        self._ask()
        return chunk
