"""From the service's errors to those that Glance answers well to.

docs/glance.md has the table and why. Reasons (docs/api.md) count before codes.
"""
from glance_store import exceptions

# In add, 503: the image stays queued and may be sent again.
_ADD_LATER = {
    'ABORTED', 'CANCELLED', 'DATA_LOSS', 'DEADLINE_EXCEEDED',
    'FAILED_PRECONDITION', 'NOT_FOUND', 'PERMISSION_DENIED',
    'RESOURCE_EXHAUSTED', 'UNAUTHENTICATED', 'UNAVAILABLE',
}
# Somewhere else, or later, it may work: 503 of a get.
_GET_LATER = {
    'ABORTED', 'CANCELLED', 'DEADLINE_EXCEEDED', 'PERMISSION_DENIED',
    'RESOURCE_EXHAUSTED', 'UNAUTHENTICATED', 'UNAVAILABLE',
}
_NO_ROOM = {'MOUNT_FULL', 'NO_SPACE_IN_CLUSTER'}
# 409 of a delete: somebody has to do something about it first.
_IN_USE = {'IMAGE_CONFLICT', 'UPLOAD_IN_PROGRESS'}


def _sentence(error):
    reason = f' ({error.reason})' if error.reason else ''
    return f'predella: {error}{reason}'


def not_in_time(what, seconds):
    """The error of a call that did not come back."""
    return _Late(f'{what} did not come back within {seconds:.0f} s')


class BadImageId(exceptions.Invalid, ValueError):
    """400 in every Glance, which is for what the user can mend: as Invalid
    alone is from 31.0 on."""


class _Late(Exception):
    """Has what an error of the native module has."""

    code = 'DEADLINE_EXCEEDED'
    reason = ''


def for_add(error):
    """Never NotFound: Glance would leave the image in saving for ever."""
    message = _sentence(error)
    if error.reason in _NO_ROOM:
        return exceptions.StorageFull(message=message)
    if error.code == 'ALREADY_EXISTS':
        return exceptions.Duplicate(message=message)
    if error.reason == 'SIZE_MISMATCH' or error.code == 'INVALID_ARGUMENT':
        return exceptions.Invalid(message=message)
    if error.code in _ADD_LATER:
        return exceptions.StorageWriteDenied(message=message)
    return exceptions.BackendException(message)


def for_get(error):
    """NotFound only when the index is sure: it becomes an empty download."""
    message = _sentence(error)
    if error.reason == 'IMAGE_NOT_FOUND' and error.code == 'NOT_FOUND':
        return exceptions.NotFound(message=message)
    if error.reason == 'READ_PAST_END':
        return exceptions.Invalid(message=message)
    if error.code == 'INVALID_ARGUMENT':
        return exceptions.BadStoreUri(message=message)
    if error.code in _GET_LATER:
        return exceptions.RemoteServiceUnavailable(message=message)
    return exceptions.BackendException(message)


def for_delete(error):
    """NotFound makes Glance forget the image, as the index has."""
    message = _sentence(error)
    if error.reason == 'IMAGE_NOT_FOUND' and error.code == 'NOT_FOUND':
        return exceptions.NotFound(message=message)
    if error.reason in _IN_USE:
        return exceptions.InUseByStore(message=message)
    if error.code == 'INVALID_ARGUMENT':
        return exceptions.BadStoreUri(message=message)
    if error.code in _GET_LATER:
        return late_delete(message=message)
    return exceptions.BackendException(message)


def late_delete(message):
    # From glance_store 5.4.0 on, and the only way to a 503.
    late = getattr(exceptions, 'TimeoutError',
                   exceptions.RemoteServiceUnavailable)
    return late(message=message)
