"""An NFS server and its clients in one guest, each in a network of its own:
packets between them can be dropped, the server stopped and started again.
See guest.sh.
"""
import os
import re
import subprocess
import time
import unittest

from cluster import wait_until

# Seconds that a server waits for its clients' claims after a restart, and
# after which a silent client's locks are gone.
GRACE = 10
KINDS = {
    'hard': 'hard,timeo=20,retrans=2',
    'soft': 'soft,timeo=20,retrans=2',
}


def need_guest():
    if not os.path.exists('/mnt/host/command'):
        raise unittest.SkipTest('runs in the guest of scripts/test --nfs')


def sh(*argv, check=True, data=None):
    done = subprocess.run(argv, check=False, input=data, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check and done.returncode != 0:
        raise AssertionError(f'{" ".join(argv)}: exit {done.returncode}: '
                             f'{done.stdout}')
    return done.stdout


class Host:
    """Network, host name and mounts of its own."""

    def __init__(self, name):
        self.name = name
        self.holder = subprocess.Popen(
            ['unshare', '--net', '--mount', '--uts', '--propagation', 'slave',
             'sh', '-c', f'hostname {name}; ip link set lo up; echo; '
             'exec sleep infinity'], stdout=subprocess.PIPE)
        self.holder.stdout.readline()

    def command(self, *argv):
        """The argv that runs there."""
        return ['nsenter', '--net', '--mount', '--uts',
                f'--target={self.holder.pid}', '--', *argv]

    def sh(self, *argv, **more):
        return sh(*self.command(*argv), **more)

    def alive(self):
        return self.holder.poll() is None

    def end(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Export:
    """A small ext4 of its own; clients mount a directory of it."""

    def __init__(self, server, name, number, mib, whole):
        self.server = server
        self.disk = f'/srv/{name}'
        self.path = self.disk if whole else f'/srv/{name}/export'
        self.number = number
        self.mib = mib
        self.image = f'/srv/{name}.img'
        self.make(self.image)
        sh('mkdir', self.disk)
        sh('mount', '-o', 'loop', self.image, self.disk)
        os.makedirs(self.path, exist_ok=True)
        self.publish()

    def make(self, image):
        with open(image, 'wb') as f:
            f.truncate(self.mib << 20)
        sh('mkfs.ext4', '-q', '-F', '-m', '0', image)

    def publish(self, number=None):
        """`number`: the fsid; it is in every handle that clients hold."""
        self.server.host.sh(
            'exportfs', '-o', 'rw,sync,no_root_squash,insecure,'
            f'no_subtree_check,fsid={number or self.number}', f'*:{self.disk}')

    def withdraw(self):
        self.server.host.sh('exportfs', '-u', f'*:{self.disk}')
        self.server.host.sh('exportfs', '-f')

    def remove(self):
        self.withdraw()
        sh('umount', '-l', self.disk, check=False)
        os.rmdir(self.disk)
        os.unlink(self.image)

    def files(self):
        """All files below it, as the server sees them."""
        return sorted(os.path.relpath(os.path.join(d, f), self.path)
                      for d, _, names in os.walk(self.path) for f in names)


class Server:
    def __init__(self):
        self.host = Host('server')
        self.exports = []
        self.numbers = 0
        self.threads = 0
        self.cables = []  # client's host or None, its device, ours
        self.connect(None, '10.9.0')
        for path in ('rpc_pipefs', 'v4recovery', 'nfsdcld', 'sm'):
            os.makedirs(f'/var/lib/nfs/{path}', exist_ok=True)
        for name in ('etab', 'rmtab', 'state'):
            open(f'/var/lib/nfs/{name}', 'ab').close()
        self.host.sh('mount', '-t', 'rpc_pipefs', 'r',
                     '/var/lib/nfs/rpc_pipefs')
        self.host.sh('mount', '-t', 'nfsd', 'n', '/proc/fs/nfsd')
        for name in ('nfsv4leasetime', 'nfsv4gracetime'):
            self.host.sh('sh', '-c', f'echo {GRACE} > /proc/fs/nfsd/{name}')
        # Remembers the clients over restarts, as a real server does.
        self.host.sh('nfsdcld', '-p', '/var/lib/nfs/rpc_pipefs')
        self.host.sh('rpc.mountd', '-N', '3')
        # The root that clients see: this machine's can not be exported.
        self.host.sh('exportfs', '-o', 'ro,insecure,no_subtree_check,fsid=0',
                     '*:/srv')
        self.start()

    def connect(self, client, network):
        """A cable to a client's host, or to this one."""
        here = f'c{network.replace(".", "")}'
        there = f's{network.replace(".", "")}'
        sh('ip', 'link', 'add', here, 'type', 'veth', 'peer', 'name', there)
        sh('ip', 'link', 'set', there, 'netns', str(self.host.holder.pid))
        run = sh
        if client is not None:
            sh('ip', 'link', 'set', here, 'netns', str(client.holder.pid))
            run = client.sh
        run('ip', 'address', 'add', f'{network}.2/24', 'dev', here)
        run('ip', 'link', 'set', here, 'up')
        self.host.sh('ip', 'address', 'add', f'{network}.1/24', 'dev', there)
        self.host.sh('ip', 'link', 'set', there, 'up')
        self.cables.append((client, here, there))

    def start(self):
        self.host.sh('rpc.nfsd', '-N', '3', '-V', '4.1', '4')
        self.threads = 4

    def stop(self):
        """Its state is gone, its files are not."""
        self.host.sh('rpc.nfsd', '0')
        self.threads = 0

    def restart(self, away=0.5):
        self.stop()
        time.sleep(away)
        self.start()

    def ends(self):
        """Who runs a command there, and the device, of each cable."""
        for client, here, there in self.cables:
            if client is None or client.alive():
                yield (client.sh if client else sh), here
                yield self.host.sh, there

    def drop(self):
        """It is not reached and answers nothing, as if it had no power."""
        for run, device in self.ends():
            run('tc', 'qdisc', 'add', 'dev', device, 'root', 'netem', 'loss',
                '100%')

    def dropped(self):
        """Packets since drop()."""
        return sum(int(n) for run, device in self.ends() for n in re.findall(
            r'dropped (\d+)', run('tc', '-s', 'qdisc', 'show', 'dev', device)))

    def well(self):
        for run, device in self.ends():
            run('tc', 'qdisc', 'del', 'dev', device, 'root', check=False)
        if not self.threads:
            self.start()

    def export(self, mib=64, whole=False):
        """`whole`: clients mount the root of its file system."""
        self.numbers += 1
        export = Export(self, f'e{self.numbers}', 100 + self.numbers, mib,
                        whole)
        self.exports.append(export)
        return export


class Mount:
    """A client's mount of an export; see Cluster(directories=)."""

    def __init__(self, export, path, kind, host=None, network='10.9.0',
                 options=''):
        self.export = export
        self.path = path
        self.kind = kind
        self.host = host
        self.address = network + '.1'
        self.options = options
        (host.sh if host else sh)('mkdir', '-p', path)
        self.mount()

    def run(self, *argv, **more):
        return (self.host.sh if self.host else sh)(*argv, **more)

    def mount(self):
        self.run('mount', '-t', 'nfs', '-o',
                 f'vers=4.1,{KINDS[self.kind]}{self.options}',
                 f'{self.address}:{self.export.path[len("/srv"):]}', self.path)

    def unmount(self):
        """Waits for its last user: what is mounted then knows nothing of
        before."""
        wait_until(f'{self.path} is unmounted', lambda: self.run(
            'sh', '-c', f'umount {self.path} 2>&1 || true').strip() == '', 30)

    def remove(self):
        self.run('umount', '-l', '-f', self.path, check=False)
