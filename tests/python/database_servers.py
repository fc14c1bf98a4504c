"""Database servers of a test's own: a process on a socket in a directory of its
own, and nothing of this machine's. They do not run as root.
"""
import glob
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import paths

sys.path.insert(0, os.path.join(paths.SOURCE, 'tests', 'integration'))

from cluster import wait_until  # noqa: E402

MARIADB = '/usr/sbin/mariadbd'
# scripts/setup --test unpacks what is not installed.
UNPACKED = os.path.join(paths.CACHE, 'predella', 'postgresql')
POSTGRES = 'usr/lib/postgresql/*/bin'


def become():
    return ['setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups'
            ] if os.geteuid() == 0 else []


class Server:
    """`url`: of a database with no table in it."""

    def __init__(self):
        self.top = tempfile.mkdtemp(prefix='pr-db-', dir='/tmp')
        os.chmod(self.top, 0o777)
        self.process = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def as_user(self, *argv, **options):
        return subprocess.run([*become(), *argv], check=True, text=True,
                              capture_output=True, cwd='/', timeout=120,
                              **options).stdout

    def serve(self, argv, socket, **options):
        log = os.path.join(self.top, 'log')
        with open(log, 'wb') as stream:
            self.process = subprocess.Popen(
                [*become(), *argv], stdout=stream, stderr=stream, cwd='/',
                start_new_session=True, **options)

        def is_there():
            if self.process.poll() is not None:
                with open(log, encoding='utf-8', errors='replace') as text:
                    raise AssertionError(f'{argv[0]} ended: {text.read()}')
            return os.path.exists(os.path.join(self.top, socket))
        wait_until(f'{argv[0]} listens', is_there)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)
        shutil.rmtree(self.top, ignore_errors=True)


class MariaDb(Server):
    """Without tables of its own, and so without users: anybody who reaches
    the socket may do everything."""

    @staticmethod
    def missing():
        if importlib.util.find_spec('pymysql') is None:
            return 'needs python3-pymysql'
        return None if os.path.exists(MARIADB) else 'needs mariadb-server-core'

    def start(self):
        socket = os.path.join(self.top, 's')
        self.as_user('mkdir', os.path.join(self.top, 'data'))
        self.serve([MARIADB, '--no-defaults', f'--datadir={self.top}/data',
                    '--skip-grant-tables', '--skip-networking',
                    f'--socket={socket}', f'--pid-file={self.top}/pid',
                    '--innodb-flush-log-at-trx-commit=0'], 's')
        import sqlalchemy
        top = f'mysql+pymysql://glance@localhost/%s?unix_socket={socket}'
        with sqlalchemy.create_engine(top % '').begin() as connection:
            connection.execute(sqlalchemy.text(
                'CREATE DATABASE glance CHARACTER SET utf8'))
        self.url = top % 'glance'


class PostgreSql(Server):
    @staticmethod
    def programs():
        """Directories of them, an installed one first."""
        return (sorted(glob.glob(f'/{POSTGRES}'), reverse=True)
                + glob.glob(os.path.join(UNPACKED, POSTGRES)))

    @classmethod
    def missing(cls):
        if importlib.util.find_spec('psycopg2') is None:
            return 'needs python3-psycopg2'
        return None if cls.programs() else (
            'needs postgresql, installed or unpacked by scripts/setup --test')

    def start(self):
        programs = self.programs()[0]
        environment = dict(os.environ)
        if programs.startswith(UNPACKED):
            # Where any user may read it: the cache may be root's.
            tree = os.path.join(self.top, 'tree')
            shutil.copytree(UNPACKED, tree, symlinks=True)
            programs = programs.replace(UNPACKED, tree)
            environment['LD_LIBRARY_PATH'] = ':'.join(
                glob.glob(f'{tree}/lib/*-linux-gnu')
                + glob.glob(f'{tree}/usr/lib/*-linux-gnu'))
        data = os.path.join(self.top, 'data')
        self.as_user(f'{programs}/initdb', '-D', data, '-A', 'trust', '-U',
                     'glance', '--no-sync', env=environment)
        self.serve([f'{programs}/postgres', '-D', data, '-k', self.top, '-c',
                    'listen_addresses=', '-c', 'fsync=off'], '.s.PGSQL.5432',
                   env=environment)
        self.url = f'postgresql+psycopg2://glance@/postgres?host={self.top}'
