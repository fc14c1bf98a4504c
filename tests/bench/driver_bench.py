#!/usr/bin/env python3
"""The Glance driver beside the stock filesystem store, in one process.

  driver_bench.py --dir DIR [--bin DIR] [--native DIR] [--mib 1024] [--rounds 5]
                  [--json FILE]

Starts `predella serve` over a directory under DIR; the stock store has another
one there. In each round, in random order: a plain read in pieces of 64 KiB, and
get of the stock store, of the driver through the open file, and of the driver
through gRPC. Nobody looks at the bytes: whoever hashes them is slower than any of
these. What counts is the median of the ratios inside a round. CPU is of this
process and the daemons together.

--glance-reads: each chunk is also given to md5, on this thread.
"""
import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
MIB = 1 << 20
TICKS = os.sysconf('SC_CLK_TCK')


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--dir', required=True)
    parser.add_argument('--bin', default=f'{TOP}/build/release/bin')
    parser.add_argument('--native', default=f'{TOP}/build/release/python')
    parser.add_argument('--mib', type=int, default=1024)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--json')
    parser.add_argument('--glance-reads', action='store_true')
    return parser.parse_args()


class Serve:
    """`predella serve` over one directory, until it is stopped."""

    def __init__(self, binaries, top):
        os.mkdir(f'{top}/store')
        self.log = open(f'{top}/serve.log', 'w+', encoding='utf-8')
        self.process = subprocess.Popen(
            [f'{binaries}/predella', 'serve', '--init', '--datadirs',
             f'{top}/store:100', '--state-dir', f'{top}/state'], stdout=self.log, stderr=self.log,
            env={**os.environ, 'XDG_RUNTIME_DIR': top, 'HOME': top})
        deadline = time.monotonic() + 30
        while True:
            with open(self.log.name, encoding='utf-8') as f:
                text = f.read()
            if 'READY' in text:
                break
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f'predella serve is not ready:\n{text}')
            time.sleep(0.05)
        self.endpoint = f'unix:{top}/state/run/coordinator.sock'

    def cpu(self):
        """Seconds of its processes so far."""
        total = 0
        pids = [self.process.pid]
        while pids:
            pid = pids.pop()
            with open(f'/proc/{pid}/stat', encoding='ascii') as f:
                fields = f.read().rsplit(')', 1)[1].split()
            total += int(fields[11]) + int(fields[12])
            with open(f'/proc/{pid}/task/{pid}/children',
                      encoding='ascii') as f:
                pids += [int(p) for p in f.read().split()]
        return total / TICKS

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


def plain(path):
    with open(path, 'rb', buffering=0) as f:
        while chunk := f.read(64 << 10):
            yield chunk


class Source:
    """What Glance hands to add."""

    def __init__(self, piece, count):
        self.piece, self.left = piece, count

    def read(self, _=None):
        self.left -= 1
        return self.piece if self.left >= 0 else b''

    def __iter__(self):
        return iter(self.read, b'')


def measure(options, top):
    os.environ['PREDELLA_NATIVE'] = options.native
    sys.path.insert(0, f'{TOP}/tests/python')
    import environment  # of the driver's tests: makes stores as Glance does
    serve = Serve(options.bin, top)
    try:
        os.mkdir(f'{top}/stock')
        return rounds(options, top, serve, environment)
    finally:
        serve.stop()


def rounds(options, top, serve, environment):
    size = options.mib * MIB
    piece = random.Random(1).randbytes(MIB)
    image = str(uuid.uuid4())
    conf, stores = environment.make_stores(
        file={'type': 'predella', 'predella_endpoint': serve.endpoint},
        stock={'type': 'file', 'filesystem_store_datadir': f'{top}/stock'})
    uris = {name: store.add(image, Source(piece, options.mib), size,
                            'sha512')[0]
            for name, store in stores.items()}
    places = {name: environment.where(conf, uri, name)
              for name, uri in uris.items()}
    # Two stores of one endpoint are refused: the other way has a turn of its
    # own.
    conf, other = environment.make_stores(
        grpc={'type': 'predella', 'predella_endpoint': serve.endpoint,
              'predella_local_reads': 'never'})
    stores.update(other)
    places['grpc'] = environment.where(conf, uris['file'], 'grpc')

    def chunks(name):
        return stores[name].get(places[name])[0]

    works = {
        'plain read, 64 KiB': lambda: plain(f'{top}/stock/{image}'),
        'stock get': lambda: chunks('stock'),
        'driver get by file': lambda: chunks('file'),
        'driver get by gRPC': lambda: chunks('grpc'),
    }
    seconds = {name: [] for name in works}
    cpu = {name: [] for name in works}
    order = list(works)
    shuffle = random.Random(1)
    for _ in range(options.rounds):
        shuffle.shuffle(order)
        for name in order:
            began, used = time.monotonic(), time.process_time() + serve.cpu()
            got = 0
            md5 = hashlib.md5()
            for chunk in works[name]():
                got += len(chunk)
                if options.glance_reads:
                    md5.update(chunk)
            seconds[name].append(time.monotonic() - began)
            cpu[name].append(time.process_time() + serve.cpu() - used)
            if got != size:
                sys.exit(f'{name}: {got} bytes of {size}')
    return report(options, seconds, cpu)


def report(options, seconds, cpu):
    out = []
    gib = options.mib / 1024
    print(f'{"work":22} {"MB/s":>7} {"CPU-s/GiB":>10}  ratio to stock (range)')
    for name, times in seconds.items():
        ratios = [s / t for s, t in zip(seconds['stock get'], times)]
        speed = options.mib * MIB / 1e6 / statistics.median(times)
        used = statistics.median(cpu[name]) / gib
        print(f'{name:22} {speed:7.0f} {used:10.2f}  '
              f'{statistics.median(ratios):.2f} '
              f'({min(ratios):.2f}-{max(ratios):.2f})')
        out.append({'work': name, 'speed': speed, 'unit': 'MB/s',
                    'cpu_seconds_per_gib': used,
                    'ratio': statistics.median(ratios),
                    'reference': 'stock get'})
    return out


def main():
    options = parse()
    with tempfile.TemporaryDirectory(
            dir=os.path.abspath(options.dir)) as top:
        result = measure(options, top)
    if options.json:
        with open(options.json, 'w', encoding='utf-8') as f:
            json.dump(result, f, indent=1)


if __name__ == '__main__':
    main()
