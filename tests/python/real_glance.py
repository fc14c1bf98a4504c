"""A glance-api of its own: configured, started, asked by HTTP. It is that of the
interpreter that runs the tests; PREDELLA_UWSGI names another uwsgi for it.
"""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import paths

sys.path.insert(0, os.path.join(paths.SOURCE, 'tests', 'integration'))

from cluster import wait_until  # noqa: E402

PASTE = '''
[pipeline:glance-api]
pipeline = context predella rootapp
[filter:predella]
paste.filter_factory = glance_store_predella.stores_detail:filter_factory
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
'''
# One worker, forked all the same: SQLite knows no others.
CONF = '''
[DEFAULT]
bind_host = 127.0.0.1
bind_port = {port}
workers = 1
enabled_backends = {backends}
log_file = {top}/glance.log
{more}
[database]
connection = {database}
[glance_store]
default_backend = {default}
{sections}
[os_glance_staging_store]
filesystem_store_datadir = {top}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {top}/tasks
[paste_deploy]
config_file = {top}/glance-api-paste.ini
'''
USER = {'X-Identity-Status': 'Confirmed', 'X-User-Id': 'u',
        'X-Tenant-Id': 'p', 'X-Project-Id': 'p', 'X-Roles': 'admin,member'}


WSGI = '''
from glance.common import wsgi_app
application = wsgi_app.init_app()
'''
DEBIANS_UWSGI = '/usr/bin/uwsgi-core'
UWSGI = os.environ.get('PREDELLA_UWSGI', DEBIANS_UWSGI)
UWSGI_INI = '''
[uwsgi]
{plugins}
http = 127.0.0.1:{port}
http-auto-chunked = true
http-chunked-input = true
http-raw-body = true
wsgi-manage-chunked-input = true
buffer-size = 65535
add-header = Connection: close
master = true
lazy-apps = true
enable-threads = true
processes = 1
threads = 40
listen = 100
socket-timeout = 60
http-timeout = 60
die-on-term = true
wsgi-file = {top}/wsgi.py
'''


class Glance:
    """`backends` as enabled_backends has it, the first the default; `sections`
    may name {top}, a directory of its own. `user`: (uid, gid) to run as, from
    a copy of the driver, which that user may read. `database`: a URL instead
    of SQLite, which tells real threads that it is locked."""

    def __init__(self, backends, sections, uwsgi=False, more='', user=None,
                 database='sqlite:///{top}/glance.sqlite'):
        self.more = more  # of [DEFAULT]
        self.database = database
        self.user = user
        # Newer ones have no server of their own.
        self.uwsgi = uwsgi or UWSGI != DEBIANS_UWSGI
        self.top = tempfile.mkdtemp(prefix='pr-glance-', dir='/tmp')
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        for name in ('disk', 'staging', 'tasks'):
            os.mkdir(os.path.join(self.top, name))
        self.config = os.path.join(self.top, 'glance-api.conf')
        self.configure(backends, sections)
        for name, text in (('wsgi.py', WSGI),
                           ('glance-api-paste.ini', PASTE)):
            with open(os.path.join(self.top, name), 'w',
                      encoding='utf-8') as stream:
                stream.write(text)
        self.env = {**os.environ, 'PYTHONPATH': ':'.join(self._installed()),
                    'OS_GLANCE_CONFIG_DIR': self.top}
        if user is not None:
            self.env['XDG_CACHE_HOME'] = self.top
            for path, _, names in os.walk(self.top):
                for name in ('', *names):
                    os.chown(os.path.join(path, name), *user)
        subprocess.run(self._command('manage') + ['db_sync'], env=self.env,
                       check=True, capture_output=True, timeout=120)
        self.start()

    def _installed(self):
        if self.user is None:
            return paths.INSTALLED
        copies = []
        for i, path in enumerate(paths.INSTALLED):
            copies.append(os.path.join(self.top, f'python-{i}'))
            shutil.copytree(path, copies[-1])
        return copies

    def configure(self, backends, sections):
        """Counts from the next start on."""
        with open(self.config, 'w', encoding='utf-8') as stream:
            stream.write(CONF.format(
                top=self.top, port=self.port, backends=backends,
                default=backends.split(':')[0], more=self.more,
                database=self.database.format(top=self.top),
                sections=sections.format(top=self.top)))

    def start(self):
        with open(os.path.join(self.top, 'server.log'), 'wb') as log:
            self.process = subprocess.Popen(
                self._uwsgi() if self.uwsgi else self._command('api'),
                env=self.env, start_new_session=True, stdout=log, stderr=log)
        try:
            wait_until('glance-api answers', self._answers, 60)
        except AssertionError:
            print(self.log()[-3000:], file=sys.stderr)
            self.stop()
            raise

    def _as_user(self):
        if self.user is None:
            return []
        uid, gid = self.user
        return ['setpriv', f'--reuid={uid}', f'--regid={gid}',
                '--clear-groups']

    def _command(self, name):
        return [*self._as_user(), sys.executable, '-W', 'ignore', '-c',
                f'import sys; from glance.cmd.{name} import main; main()',
                '--config-file', self.config]

    def _uwsgi(self):
        """As Debian's glance-api-uwsgi.ini has it, in one process."""
        ini = os.path.join(self.top, 'uwsgi.ini')
        with open(ini, 'w', encoding='utf-8') as stream:
            # pip's has everything built in.
            stream.write(UWSGI_INI.format(
                top=self.top, port=self.port, plugins='plugins = http,python3'
                if UWSGI == DEBIANS_UWSGI else ''))
        return [*self._as_user(), UWSGI, '--ini', ini]

    def _answers(self):
        try:
            return self.call('GET', '/v2/images')[0] == 200
        except OSError:
            return False

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def kill_workers(self):
        """All that the server has forked; it makes others."""
        children = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/stat', encoding='ascii') as stream:
                    parent = stream.read().rpartition(')')[2].split()[1]
            except OSError:
                continue
            if int(parent) == self.process.pid:
                children.append(int(pid))
        assert children, 'the server has no workers'
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        wait_until('others answer', self._answers, 60)

    def stop(self):
        if self.process.poll() is None:
            self.kill()
        subprocess.run(['rm', '-rf', self.top], check=False)

    def log(self):
        text = ''
        for name in ('server.log', 'glance.log'):
            path = os.path.join(self.top, name)
            if os.path.exists(path):
                with open(path, encoding='utf-8', errors='replace') as stream:
                    text += stream.read()
        return text

    def call(self, method, path, body=None, chunked=False, **headers):
        """(status, body); JSON is parsed."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port,
                                                timeout=60)
        headers = {**USER, **{k.replace('_', '-'): v
                              for k, v in headers.items()}}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers['Content-Type'] = 'application/json'
        elif body is not None and 'Content-Type' not in headers:
            headers['Content-Type'] = 'application/octet-stream'
        connection.request(method, path, body, headers,
                           encode_chunked=chunked)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        if response.headers.get_content_type() == 'application/json':
            data = json.loads(data)
        return response.status, data

    def patch(self, image, changes, **headers):
        """The status."""
        return self.call(
            'PATCH', f'/v2/images/{image}', json.dumps(changes).encode(),
            Content_Type='application/openstack-images-v2.1-json-patch',
            **headers)[0]

    def create(self, name='a'):
        status, image = self.call('POST', '/v2/images', {
            'name': name, 'disk_format': 'raw', 'container_format': 'bare'})
        assert status == 201, (status, image)
        return image['id']

    def upload(self, image, data, chunked=False, **headers):
        body = data
        if chunked:
            body = (data[i:i + 70_001] for i in range(0, len(data), 70_001))
            headers['Transfer_Encoding'] = 'chunked'
        return self.call('PUT', f'/v2/images/{image}/file', body, chunked,
                         **headers)[0]

    def show(self, image):
        return self.call('GET', f'/v2/images/{image}')[1]

    def download(self, image, **headers):
        return self.call('GET', f'/v2/images/{image}/file', **headers)
