"""Requests that no good client sends, by grpcurl."""
import base64
import json
import os
import shutil
import subprocess

from cluster import run

CODES = ('OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED',
         'NOT_FOUND', 'ALREADY_EXISTS', 'PERMISSION_DENIED',
         'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'ABORTED',
         'OUT_OF_RANGE', 'UNIMPLEMENTED', 'INTERNAL', 'UNAVAILABLE',
         'DATA_LOSS', 'UNAUTHENTICATED')


def grpcurl():
    """The path of grpcurl, as scripts/setup builds it; or None."""
    tools = os.path.join(os.environ.get('XDG_CACHE_HOME') or
                         os.path.expanduser('~/.cache'), 'predella', 'bin')
    return shutil.which('grpcurl', path=tools + ':' + os.environ['PATH'])


class Answer:
    """What a call brought: responses, then a status."""

    def __init__(self, out, err, exit_code):
        decoder = json.JSONDecoder()
        self.responses = []
        rest = out.strip()
        while rest:
            message, end = decoder.raw_decode(rest)
            self.responses.append(message)
            rest = rest[end:].lstrip()
        self.code, self.message, self.reason, self.metadata = 'OK', '', '', {}
        if exit_code != 0 and not err.startswith('{'):
            # Nobody answered: grpcurl speaks for itself.
            self.code, self.message = 'UNAVAILABLE', err
        elif exit_code != 0:
            status = json.loads(err)
            self.code = CODES[status['code']]
            self.message = status['message']
            for detail in status.get('details', []):
                self.reason = detail.get('reason', self.reason)
                self.metadata = detail.get('metadata', self.metadata)

    def __repr__(self):
        return f'{self.code} {self.reason}: {self.message}'


def argv(socket, method):
    return [grpcurl(), '-plaintext', '-unix', '-format-error', '-d', '@',
            socket, 'predella.v1.' + method]


def call(socket, method, *messages):
    """Sends the messages, ends its side and waits for the answer."""
    data = '\n'.join(json.dumps(m) for m in messages).encode()
    result = run(argv(socket, method), data)
    return Answer(result.text, result.err, result.code)


class OpenCall:
    """A call whose messages the test sends one by one."""

    def __init__(self, socket, method):
        self.process = subprocess.Popen(
            argv(socket, method), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def send(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b'\n')
        self.process.stdin.flush()

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return Answer(out.decode(), err.decode(), self.process.returncode)

    def kill(self):
        """The client vanishes."""
        self.process.kill()
        self.process.communicate()


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def chunk(offset, data, crc=None):
    message = {'offset': offset, 'data': base64.b64encode(data).decode()}
    if crc is not None:
        message['crc32c'] = crc
    return {'chunk': message}


def commit(size, crc=None):
    message = {'size_bytes': size}
    if crc is not None:
        message['crc32c'] = crc
    return {'commit': message}


def header(upload, /, **changes):
    """The header of a stream for what StartUpload answered."""
    return {'header': {
        'upload': upload['name'], 'image': upload['image'],
        'generation': upload['generation'],
        'mount_uid': upload['target']['mount_uid'],
        'capability': upload['write_capability'], **changes}}


def socket_of(upload):
    return upload['target']['addresses'][0].removeprefix('unix:')
