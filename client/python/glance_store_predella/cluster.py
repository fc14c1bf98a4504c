"""What the service knows, through its command line with -o json."""
import json
import os
import shutil
import subprocess
import sys


class Failed(Exception):
    """A sentence for the operator."""


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
        return done.returncode, done.stdout, done.stderr.strip()

    def ask(self, *arguments):
        code, out, complaint = self.run(*arguments, '-o', 'json')
        if code != 0:
            raise Failed(complaint or f'predella {arguments[0]}: exit {code}')
        return json.loads(out)

    def mounts(self):
        """Those that are not given up, by name."""
        return {_bare(mount['name']): mount
                for mount in self.ask('mount', 'ls')['mounts']
                if mount['adminState'] != 'ADMIN_STATE_RETIRED'}

    def images(self):
        return {_bare(image['name']): image
                for image in self.ask('image', 'ls')['images']}

    def orphans(self):
        """{(mount, id): orphan}; what other stores wrote has no generation."""
        return {(_bare(orphan['mount']), _bare(orphan['image'])): orphan
                for orphan in self.ask('orphan', 'ls')['orphans']}

    def impact(self, names):
        return self.ask('mount', 'impact', *names)

    def list_again(self):
        """Has every mount listed; what it finds is no failure of it."""
        code, _, complaint = self.run('index', 'check')
        if code not in (0, 6):
            raise Failed(complaint or f'predella index check: exit {code}')

    def adopt(self, mount, image, path, size, hashes):
        """None, or why not."""
        arguments = ['orphan', 'adopt', mount, image, '--read', path]
        if size is not None:
            arguments += ['--size', str(size)]
        for algorithm, value in hashes.items():
            arguments += ['--hash', f'{algorithm}:{value}']
        code, _, complaint = self.run(*arguments)
        return None if code == 0 else complaint or f'exit code {code}'


def mounts_of(image):
    return [_bare(copy['mount']) for copy in image['copies']]


def hashes_of(image):
    return {one['algorithm']: one['hex'] for one in image['hashes']}


def _bare(name):
    return name.rsplit('/', 1)[-1]
