"""The driver beside Glance's filesystem store, in the same directories and the
same run: through glance_store alone, and through a real glance-api.

Rounds are shuffled; a ratio is that of the speeds in one round. The stock store
syncs nothing: its uploads are also compared with the time that an fdatasync of
its files takes besides, as ours are on the disk when they are answered.

The glance-api is that of the interpreter, as in tests/python/real_glance.py:
PREDELLA_UWSGI names the uwsgi of a virtual environment.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'python'))

import environment  # noqa: E402
from database_servers import MariaDb  # noqa: E402
from real_glance import DEBIANS_UWSGI  # noqa: E402
from real_glance import Glance  # noqa: E402
from real_glance import USER  # noqa: E402
from real_glance import UWSGI  # noqa: E402
from cluster import Cluster  # noqa: E402

MIB = 1 << 20
CHUNK = 64 << 10  # what a WSGI server gives at once
STORES = ('predella', 'stock')
SYNCED = 'stock and fdatasync'
BLOCK = random.Random(1).randbytes(16 * MIB)


class Source:
    """An image file of so many bytes, as Glance hands one to a store."""

    def __init__(self, size):
        self.left = size
        self.at = 0

    def read(self, size=CHUNK):
        size = min(size, self.left, CHUNK, len(BLOCK) - self.at)
        piece = BLOCK[self.at:self.at + size]
        self.left -= size
        self.at = (self.at + size) % len(BLOCK)
        return piece

    def __iter__(self):
        while piece := self.read():
            yield piece


def sync(directories, images):
    for path in (os.path.join(directory, image) for directory in directories
                 for image in images):
        if os.path.exists(path):
            with open(path, 'rb') as stream:
                os.fdatasync(stream.fileno())


class Drivers:
    """Both stores in this process."""

    def __init__(self, cluster, directories):
        self.directories = directories
        self.cpu = lambda: cpu_seconds(cluster)
        self.locations = {}
        self.conf, stores = environment.make_stores(
            predella={'type': 'predella', 'predella_endpoint':
                      cluster.endpoint},
            stock={'type': 'file', 'filesystem_store_datadir': '',
                   'filesystem_store_datadirs': directories})
        self.stores = {name: stores[name] for name in STORES}

    def add(self, store, size):
        """The image's id."""
        image = str(uuid.uuid4())
        url, written = self.stores[store].add(image, Source(size), 0,
                                              'sha512')[:2]
        assert written == size, (store, written)
        self.locations[image] = environment.where(self.conf, url, store)
        return image

    def get(self, store, image):
        data, size = self.stores[store].get(self.locations[image])
        got = sum(len(piece) for piece in data)
        assert got == int(size), (store, got, size)

    def delete(self, store, image):
        self.stores[store].delete(self.locations.pop(image))


class Api:
    """Both stores in a glance-api."""

    def __init__(self, cluster, directories):
        self.directories = directories
        self.cpu = lambda: cpu_seconds(cluster, self.glance)
        # Real threads can not share SQLite.
        self.server = MariaDb() if UWSGI != DEBIANS_UWSGI else None
        others = {'database': self.server.url} if self.server else {}
        lines = '\n'.join(f'filesystem_store_datadirs = {path}'
                          for path in directories)
        self.glance = Glance('predella:predella, stock:file', f'''
[predella]
predella_endpoint = {cluster.endpoint}
[stock]
filesystem_store_datadir =
{lines}
''', **others)

    def stop(self):
        self.glance.stop()
        if self.server:
            self.server.stop()

    def add(self, store, size):
        image = self.glance.create()
        connection = http.client.HTTPConnection('127.0.0.1', self.glance.port)
        connection.request(
            'PUT', f'/v2/images/{image}/file', iter(Source(size)),
            {**USER, 'X-Image-Meta-Store': store, 'Content-Type':
             'application/octet-stream', 'Transfer-Encoding': 'chunked'},
            encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 204, (store, answer.status, answer.read())
        connection.close()
        return image

    def get(self, store, image):
        connection = http.client.HTTPConnection('127.0.0.1', self.glance.port)
        connection.request('GET', f'/v2/images/{image}/file', headers=USER)
        answer = connection.getresponse()
        assert answer.status == 200, (store, answer.status)
        got = 0
        while piece := answer.read(MIB):
            got += len(piece)
        assert got == int(answer.headers['Content-Length']), (store, got)
        connection.close()

    def delete(self, store, image):
        status, answer = self.glance.call('DELETE', f'/v2/images/{image}')
        assert status == 204, (store, answer)


def timed(work):
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


def cpu_seconds(cluster, glance=None):
    """What this process, the daemons and a glance-api have used."""
    pids = {os.getpid(), *(daemon.process.pid for daemon in (
        cluster.coordinator, *cluster.agents.values()))}
    ticks = 0
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{name}/stat', encoding='ascii') as stream:
                fields = stream.read().rpartition(')')[2].split()
        except OSError:
            continue
        of_glance = glance is not None and int(fields[3]) == glance.process.pid
        if int(name) in pids or of_glance:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf('SC_CLK_TCK')


class Samples:
    """Bytes a second and CPU seconds a GiB, by work and store."""

    def __init__(self, works):
        self.speed = {work: {name: [] for name in (*STORES, SYNCED)}
                      for work in works}
        self.cpu = {work: {name: [] for name in STORES} for work in works}


def one_round(through, size, times, samples, order):
    with concurrent.futures.ThreadPoolExecutor(times) as pool:
        def run(work, store, call, arguments):
            used = through.cpu()
            took, results = timed(lambda: list(pool.map(call, arguments)))
            samples.speed[work][store].append(size / took)
            samples.cpu[work][store].append(
                (through.cpu() - used) / (size / (1 << 30)))
            return took, results

        for store in order:
            for name, amount in (('one', 1), (f'{times} at once', times)):
                took, images = run(
                    f'upload, {name}', store,
                    lambda _: through.add(store, size // amount),
                    range(amount))
                if store == 'stock':
                    besides, _ = timed(
                        lambda: sync(through.directories, images))
                    samples.speed[f'upload, {name}'][SYNCED].append(
                        size / (took + besides))

                def get(image):
                    through.get(store, image)
                # Warm, whatever the upload left in the cache.
                list(pool.map(get, images))
                run(f'download, {name}', store, get, images)
                for image in images:
                    through.delete(store, image)


def measure(title, through, size, rounds, times=4):
    works = [f'{what}, {name}' for name in ('one', f'{times} at once')
             for what in ('upload', 'download')]
    one_round(through, size // 8, times, Samples(works), STORES)  # warms up
    samples = Samples(works)
    shuffle = random.Random(size)
    for _ in range(rounds):
        order = list(STORES)
        shuffle.shuffle(order)
        one_round(through, size, times, samples, order)
    return [row(f'{title}: {work}', reference, samples.speed[work],
                samples.cpu[work])
            for work in works for reference in ('stock', SYNCED)
            if samples.speed[work][reference]]


def row(work, reference, speed, cpu):
    ours, theirs = speed['predella'], speed[reference]
    ratios = [a / b for a, b in zip(ours, theirs)]
    out = {'work': f'{work} / {reference}', 'reference': reference,
           'speed': statistics.median(ours),
           'reference_speed': statistics.median(theirs),
           'ratio': statistics.median(ratios),
           'lowest': min(ratios), 'highest': max(ratios),
           'cpu': statistics.median(cpu['predella']),
           'reference_cpu': statistics.median(cpu['stock'])}
    print(f'{work:32} {out["speed"] / 1e6:6.0f} MB/s   {reference:20} '
          f'{out["reference_speed"] / 1e6:6.0f} MB/s   {out["ratio"]:.2f}'
          f' ({out["lowest"]:.2f}-{out["highest"]:.2f})   CPU '
          f'{out["cpu"]:.1f} and {out["reference_cpu"]:.1f} s/GiB', flush=True)
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--dir', default='/tmp',
                        help='on the file system that is measured')
    parser.add_argument('--mib', type=int, default=1024,
                        help='of an image, through the driver')
    parser.add_argument('--api-mib', type=int, default=300,
                        help='of an image, through a glance-api')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--json')
    args = parser.parse_args()
    top = tempfile.mkdtemp(prefix='glance-bench-',
                           dir=os.path.abspath(args.dir))
    directories = [os.path.join(top, f'store-{i}') for i in (1, 2, 3)]
    cluster = Cluster((100, 100, 100), directories)
    through = None
    print(f'load {" ".join(f"{one:.1f}" for one in os.getloadavg())}')
    try:
        cluster.start()
        rows = measure('driver', Drivers(cluster, directories),
                       args.mib * MIB, args.rounds)
        through = Api(cluster, directories)
        rows += measure('glance-api', through, args.api_mib * MIB,
                        args.rounds)
    finally:
        if through is not None:
            through.stop()
        cluster.stop()
        shutil.rmtree(top, ignore_errors=True)
    print(f'load {" ".join(f"{one:.1f}" for one in os.getloadavg())}')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as stream:
            json.dump(rows, stream, indent=1)


if __name__ == '__main__':
    main()
