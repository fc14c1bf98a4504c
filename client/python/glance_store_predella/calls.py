"""Single questions to the coordinator, asked again while it is away.

Uploads and open downloads are tried again by the native module. Of a single
call that has an end after seconds, and so has the first question of a read.
"""
import time

from glance_store_predella import errors
from glance_store_predella import native

# Longer than the native module's own deadlines: a last resort.
CALL_SECONDS = 60
STEP_SECONDS = 0.5
# Without a reason of the service's own it is the connection that says so.
_AWAY = {'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED'}
# The coordinator ends just now.
_STARTS_AGAIN = {'', 'NOT_READY'}


def call(begin, what, mapping, patience):
    """The result of begin(), a call; its errors as mapping makes them."""
    def once():
        begun = begin()
        if not native.wait(begun.job, CALL_SECONDS):
            raise mapping(errors.not_in_time(what, CALL_SECONDS))
        return begun.result()
    try:
        return patiently(once, patience)
    except native.module().Error as e:
        raise mapping(e) from e


def patiently(attempt, seconds):
    """What attempt() returns, begun anew while the coordinator is away.

    The last one begins when the time is over at the latest.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except native.module().Error as e:
            left = end - time.monotonic()
            if left <= 0 or not is_away(e):
                raise
        native.pause(min(STEP_SECONDS, left))


def is_away(error):
    return error.code in _AWAY and error.reason in _STARTS_AGAIN
