"""The one place that knows the native module; tests put a fake in its place.

It is imported when a store is configured and not before: a module that could
not be loaded would stop glance-api, a store that is not configured does not.
"""
import importlib
import sys
import time

_module = None

# Names of hashlib and of OpenSSL where they differ.
_OPENSSL = {
    'blake2b': 'blake2b512',
    'blake2s': 'blake2s256',
    'sha3_224': 'sha3-224',
    'sha3_256': 'sha3-256',
    'sha3_384': 'sha3-384',
    'sha3_512': 'sha3-512',
    'sha512_224': 'sha512-224',
    'sha512_256': 'sha512-256',
}


def module():
    global _module
    if _module is None:
        _module = importlib.import_module('predella_native')
    return _module


def openssl_name(algorithm):
    """OpenSSL's name of a hash, or None where it does not have it."""
    name = _OPENSSL.get(algorithm.lower(), algorithm.lower())
    return name if module().has_hash(name) else None


class _Elapsed(Exception):
    pass


def _event_hub():
    """eventlet's hubs, where this thread runs green threads of its.

    eventlet may be imported and do nothing (Glance under uWSGI), and real
    threads (tpool) run beside a hub: those simply block.
    """
    patcher = sys.modules.get('eventlet.patcher')
    hubs = sys.modules.get('eventlet.hubs')
    if (patcher is None or hubs is None or
            not patcher.is_monkey_patched('thread')):
        return None
    local = getattr(hubs, '_threadlocal', None)
    return hubs if getattr(local, 'hub', None) is not None else None


def give_way():
    """Lets other green threads run, of a transfer that need not wait.

    Where the other side is faster than this one something is always ready, and
    the hub would not run before the end of it.
    """
    if _event_hub() is not None:
        sys.modules['eventlet.greenthread'].sleep(0)


def pause(seconds):
    """Sleeps without holding up other threads, green or real."""
    if _event_hub() is not None:
        sys.modules['eventlet.greenthread'].sleep(seconds)
        return
    # Of eventlet's own, in a thread without a hub, would make one.
    patcher = sys.modules.get('eventlet.patcher')
    clock = time if patcher is None else patcher.original('time')
    clock.sleep(seconds)


def wait(job, seconds=None):
    """Waits for a job without holding up other threads, green or real.

    Returns False when the time passed first. None: however long it takes; the
    job itself has deadlines then.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    hubs = _event_hub()
    while not job.ready():
        left = (60.0 if deadline is None else deadline - time.monotonic())
        if left <= 0:
            return False
        if hubs is None:
            # In pieces, so that signals are handled meanwhile.
            job.wait(min(left, 0.5))
            continue
        try:
            hubs.trampoline(job.fileno(), read=True, timeout=min(left, 60.0),
                            timeout_exc=_Elapsed)
        except _Elapsed:
            continue
        job.drain()
    return True
