"""The driver beside Glance's filesystem store, in the same directories and the
same run: through glance_store alone (driver), through a real glance-api (api), and
the ways to an image's bytes (reads): a plain read in pieces of 64 KiB, the open
file, gRPC. Nobody looks at the bytes there, as whoever hashes them is slower than
any of these; --glance-reads gives each piece to md5.

Rounds are shuffled; a ratio is that of the speeds in one round. The stock store
syncs nothing: its uploads are also compared with the time that an fdatasync of
its files takes besides, as ours are on the disk when they are answered.

The glance-api is that of the interpreter, as in tests/python/real_glance.py:
PREDELLA_UWSGI names the uwsgi of a virtual environment.
"""
import argparse
import concurrent.futures
import hashlib
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
PARTS = ('driver', 'reads', 'api')
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

    def open(self, store, image):
        return self.stores[store].get(self.locations[image])[0]

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
    return [row(f'{title}: {work}', 'predella', reference,
                samples.speed[work], samples.cpu[work])
            for work in works for reference in ('stock', SYNCED)
            if samples.speed[work][reference]]


def plain(path):
    with open(path, 'rb', buffering=0) as stream:
        while piece := stream.read(CHUNK):
            yield piece


def measure_reads(drivers, endpoint, size, rounds, with_md5):
    """Each way to the bytes of one image, warm, beside the stock store's."""
    images = {store: drivers.add(store, size) for store in STORES}
    # Two stores of one endpoint are refused: the other way has a turn of its
    # own.
    conf, other = environment.make_stores(
        grpc={'type': 'predella', 'predella_endpoint': endpoint,
              'predella_local_reads': 'never'})
    location = drivers.locations[images['predella']]
    path = next(path for path in (
        os.path.join(directory, images['stock'])
        for directory in drivers.directories) if os.path.exists(path))
    by_grpc = environment.where(conf, location.get_store_uri(), 'grpc')
    ways = {
        'stock': lambda: drivers.open('stock', images['stock']),
        'plain read': lambda: plain(path),
        'open file': lambda: drivers.open('predella', images['predella']),
        'gRPC': lambda: other['grpc'].get(by_grpc)[0],
    }
    speed, cpu = ({way: [] for way in ways} for _ in range(2))

    def read(way):
        digest = hashlib.md5()
        got = 0
        for piece in ways[way]():
            got += len(piece)
            if with_md5:
                digest.update(piece)
        assert got == size, (way, got)

    shuffle = random.Random(size)
    order = list(ways)
    for way in order:  # warms up
        read(way)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for way in order:
            used = drivers.cpu()
            took, _ = timed(lambda: read(way))
            speed[way].append(size / took)
            cpu[way].append((drivers.cpu() - used) / (size / (1 << 30)))
    for store, image in images.items():
        drivers.delete(store, image)
    return [row(f'reads: {way}', way, 'stock', speed, cpu)
            for way in ways if way != 'stock']


def row(work, name, reference, speed, cpu):
    ours, theirs = speed[name], speed[reference]
    ratios = [a / b for a, b in zip(ours, theirs)]
    out = {'work': f'{work} / {reference}', 'reference': reference,
           'speed': statistics.median(ours),
           'reference_speed': statistics.median(theirs),
           'ratio': statistics.median(ratios),
           'lowest': min(ratios), 'highest': max(ratios),
           'cpu': statistics.median(cpu[name]),
           'reference_cpu': statistics.median(cpu['stock'])}
    print(f'{work:32} {out["speed"] / 1e6:6.0f} MB/s   {reference:20} '
          f'{out["reference_speed"] / 1e6:6.0f} MB/s   {out["ratio"]:.2f}'
          f' ({out["lowest"]:.2f}-{out["highest"]:.2f})   CPU '
          f'{out["cpu"]:.1f} and {out["reference_cpu"]:.1f} s/GiB', flush=True)
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--dir', default='/tmp',
                        help='on the file system that is measured')
    parser.add_argument('--mib', type=int, default=1024,
                        help='of an image, through the driver')
    parser.add_argument('--api-mib', type=int, default=300,
                        help='of an image, through a glance-api')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', choices=PARTS, action='append',
                        help='a part; may be given again (all)')
    parser.add_argument('--glance-reads', action='store_true',
                        help='of the reads: each piece is also given to md5')
    parser.add_argument('--json')
    args = parser.parse_args()
    top = tempfile.mkdtemp(prefix='glance-bench-',
                           dir=os.path.abspath(args.dir))
    directories = [os.path.join(top, f'store-{i}') for i in (1, 2, 3)]
    cluster = Cluster((100, 100, 100), directories)
    through = None
    parts = args.only or PARTS
    print(f'load {" ".join(f"{one:.1f}" for one in os.getloadavg())}')
    try:
        cluster.start()
        rows = []
        drivers = Drivers(cluster, directories)
        if 'driver' in parts:
            rows += measure('driver', drivers, args.mib * MIB, args.rounds)
        if 'reads' in parts:
            rows += measure_reads(drivers, cluster.endpoint, args.mib * MIB,
                                  args.rounds, args.glance_reads)
        if 'api' in parts:
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
