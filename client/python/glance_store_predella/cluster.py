"""What the service knows, through its command line with -o json."""
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile

_PIECE = 1 << 20
_HEALTH = len('IMAGE_HEALTH_')
_NOT_HEALTHY = 6  # exit code


class Failed(Exception):
    """A sentence for the operator."""


@dataclasses.dataclass(slots=True)
class Image:
    """A row of the index; there may be hundreds of thousands."""
    id: str
    size: int
    key: str
    health: str  # HEALTHY, DEGRADED, LOST, ...
    created: str
    mounts: tuple
    hashes: dict | None = None  # value by algorithm
    # Why a copy is not to be read, by mount; None: all are well.
    bad: dict | None = None

    @staticmethod
    def of(row, hashes=True):
        bad = {bare(copy['mount']): why for copy in row['copies']
               if (why := _why_bad(copy)) is not None}
        return Image(
            bare(row['name']), int(row['sizeBytes']), row['locationKey'],
            sys.intern(row['health'][_HEALTH:]), row['createTime'],
            tuple(sys.intern(bare(copy['mount'])) for copy in row['copies']),
            {one['algorithm']: one['hex'] for one in row['hashes']}
            if hashes else None, bad or None)

    def sound(self):
        """Mounts with a copy that nothing is known against."""
        return [one for one in self.mounts if one not in (self.bad or ())]

    def why_bad(self):
        return '; '.join((self.bad or {}).values())


# What a copy is worth nothing on, for as long as it lasts.
_AWAY = ('HUNG', 'FAILED', 'ABSENT', 'UNREACHABLE', 'UNKNOWN')


def _why_bad(copy):
    """Why a copy is not to be read, or None."""
    mount = bare(copy['mount'])
    fault = copy.get('fault', 'COPY_FAULT_UNSPECIFIED')[len('COPY_FAULT_'):]
    health = copy.get('health', '')[len('HEALTH_'):]
    if fault != 'UNSPECIFIED':
        detail = copy.get('faultDetail')
        return (f'its copy on {mount} is {fault}'
                f'{f" ({detail})" if detail else ""}')
    return f'its copy is on {mount}, which is {health}' if (
        health in _AWAY) else None


def elements(stream, name):
    """Of the list that is the first member of a JSON object, one at a time."""
    decoder = json.JSONDecoder()
    text, at, began = '', 0, False
    while True:
        piece = stream.read(_PIECE)
        text, at = text[at:] + piece, 0
        if not began:
            start = text.find('[')
            if start >= 0 and "".join(
                    text[:start].split()) == f'{{"{name}":':
                at, began = start + 1, True
        while began:
            while at < len(text) and (text[at].isspace() or text[at] == ','):
                at += 1
            if text[at:at + 1] == ']':
                return
            try:
                value, at = decoder.raw_decode(text, at)
            except ValueError:
                break  # the rest of it is still to come
            yield value
        if not piece:
            raise ValueError(f'it ends within "{name}"')


class Cluster:
    def __init__(self, endpoint=None, program=None):
        self.program = program or os.environ.get('PREDELLA_PROGRAM')
        if self.program is None:
            beside = os.path.join(os.path.dirname(sys.argv[0]), 'predella')
            self.program = (beside if os.access(beside, os.X_OK)
                            else shutil.which('predella'))
        if self.program is None:
            raise Failed('the program "predella" is not in PATH; '
                         'PREDELLA_PROGRAM may name it')
        self.endpoint = ['--endpoint', endpoint] if endpoint else []

    def run(self, *arguments):
        """(exit code, what it printed, what it complained of)."""
        done = subprocess.run([self.program, *self.endpoint, *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False)
        return done.returncode, done.stdout, _sentence(done.stderr)

    def ask(self, *arguments):
        code, out, complaint = self.run(*arguments, '-o', 'json')
        if code != 0:
            raise Failed(complaint or f'predella {arguments[0]}: exit {code}')
        return json.loads(out)

    def mounts(self):
        """Those that are not given up, by name."""
        return {bare(mount['name']): mount
                for mount in self.ask('mount', 'ls')['mounts']
                if mount['adminState'] != 'ADMIN_STATE_RETIRED'}

    def images(self, hashes=True):
        """{id: Image}; the list is never whole in memory as text."""
        with tempfile.TemporaryFile('w+', encoding='utf-8') as complaints:
            with subprocess.Popen(
                    [self.program, *self.endpoint, 'image', 'ls', '-o',
                     'json'], stdin=subprocess.DEVNULL, text=True,
                    stdout=subprocess.PIPE, stderr=complaints) as listing:
                found, cut = {}, None
                try:
                    for row in elements(listing.stdout, 'images'):
                        image = Image.of(row, hashes)
                        found[image.id] = image
                except ValueError as e:
                    cut = e
                listing.stdout.read()
            complaints.seek(0)
            if listing.returncode != 0 or cut is not None:
                raise Failed(_sentence(complaints.read()) or
                             f'predella image ls: exit {listing.returncode}, '
                             f'{cut}')
        return found

    def uid(self):
        """Which cluster it is, however it is."""
        code, out, complaint = self.run('cluster', 'status', '-o', 'json')
        if code not in (0, _NOT_HEALTHY):
            raise Failed(complaint or f'predella cluster status: exit {code}')
        return json.loads(out)['uid']

    def orphans(self):
        """{(mount, id): orphan}; what other stores wrote has no generation."""
        return {(bare(orphan['mount']), bare(orphan['image'])): orphan
                for orphan in self.ask('orphan', 'ls')['orphans']}

    def uploads(self):
        return self.ask('upload', 'ls')['uploads']

    def impact(self, names):
        return self.ask('mount', 'impact', *names)

    def list_again(self):
        """Has every mount listed; what it finds is no failure of it."""
        code, _, complaint = self.run('index', 'check')
        if code not in (0, _NOT_HEALTHY):
            raise Failed(complaint or f'predella index check: exit {code}')

    def adopt(self, mount, image, path, size, hashes):
        """None, or why not."""
        arguments = ['orphan', 'adopt', mount, image, '--read', path]
        if size is not None:
            arguments += ['--size', str(size)]
        for algorithm, value in hashes.items():
            arguments += ['--hash', f'{algorithm}:{value}']
        code, _, complaint = self.run(*arguments)
        if code == 0:
            return None
        why, _, hint = complaint.partition('\nhint: ')
        # There is no image yet whose copies that could show.
        return (why if hint.startswith('predella image stat') else
                complaint) or f'exit code {code}'


def _sentence(complaint):
    """Without the program's own "error: ", as ours is before it."""
    return complaint.strip().removeprefix('error: ')


def bare(name):
    return name.rsplit('/', 1)[-1]
