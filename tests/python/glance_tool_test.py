"""predella-glance: its judgement, on a fake cluster and a database in SQLite."""
import contextlib
import json
import os
import sqlite3
import time
import unittest
import uuid

import environment  # noqa: F401

from glance_store_predella import adopt
from glance_store_predella import command
from glance_store_predella import sources
from glance_store_predella.cluster import Failed
from tool_case import KEY
from tool_case import ToolCase


class AdoptTest(ToolCase):
    def look(self, glance=True, paths=None, directories=()):
        images = None
        if glance:
            args = command._parser().parse_args(
                ['export', '--database', self.url])
            images = sources.database(args).images()
        # The change time of files can not be set, so the clock is.
        mounts, _ = adopt.mounts_at(self.cluster,
                                    paths or list(self.paths.values()))
        files = adopt.look(self.cluster, mounts, images, 300, directories,
                           lambda: time.time() + 1000)
        return {os.path.relpath(one.path, self.top): one.kind
                for one in files}

    def test_what_is_not_an_image(self):
        image = str(uuid.uuid4())
        self.write('a', 'notes')
        self.write('a', image.upper())
        os.mkdir(os.path.join(self.paths['a'], str(uuid.uuid4())))
        os.symlink('/etc/passwd',
                   os.path.join(self.paths['a'], str(uuid.uuid4())))
        os.mkdir(os.path.join(self.paths['a'], '.predella'))
        self.assertEqual([adopt.STRANGER] * 4,
                         list(self.look(glance=False).values()))

    def test_what_changed_lately_is_left(self):
        image = str(uuid.uuid4())
        self.write('a', image)
        mounts, _ = adopt.mounts_at(self.cluster, [self.paths['a']])
        files = adopt.look(self.cluster, mounts, None, 300)
        self.assertEqual([adopt.CHANGING], [one.kind for one in files])
        self.assertEqual({f'a/{image}': adopt.TAKE}, self.look(glance=False))

    def test_what_glance_says(self):
        images = {
            adopt.TAKE: self.image(f'file://{self.paths["a"]}/ID'),
            adopt.PARTIAL: self.image(f'file://{self.paths["a"]}/ID', size=4),
            adopt.CONFLICT: self.image('file:///elsewhere/ID'),
            adopt.UNKNOWN: str(uuid.uuid4()),
        }
        for image in images.values():
            self.write('a', image)
        self.assertEqual({f'a/{image}': kind
                          for kind, image in images.items()}, self.look())
        # Its data is elsewhere, and nobody would refer to this.
        other = self.image('rbd://x/ID')
        self.write('b', other)
        self.assertEqual(adopt.CONFLICT, self.look()[f'b/{other}'])
        saving = self.image(size=None, status='saving')
        self.write('b', saving)
        self.assertEqual(adopt.PARTIAL, self.look()[f'b/{saving}'])

    def test_one_id_in_two_directories(self):
        image = self.image(f'file://{self.paths["b"]}/ID')
        self.write('a', image)
        self.write('b', image)
        self.assertEqual({f'a/{image}': adopt.TWICE, f'b/{image}': adopt.TAKE},
                         self.look())
        # Without Glance nobody knows which.
        self.assertEqual({adopt.TWICE}, set(self.look(glance=False).values()))

    def test_what_was_twice_stays_so_when_one_is_taken_in(self):
        image = self.image(f'file://{self.paths["b"]}/ID')
        for name in 'ab':
            self.write(name, image)
        arguments = ('adopt', self.paths['a'], self.paths['b'], '--database',
                     self.url, '--settle', '0')
        for _ in range(2):
            _, out, _ = self.run_tool(*arguments)
            self.assertRegex(out, f'{self.paths["a"]}/{image} +3 +twice')
            self.cluster.add(image, 'b')

    def test_what_an_agent_would_refuse(self):
        linked, closed, plain, read_only = (
            str(uuid.uuid4()) for _ in range(4))
        os.link(self.write('a', linked), os.path.join(self.top, 'other'))
        os.chmod(self.write('a', closed), 0o000)
        self.write('a', plain)
        os.chmod(self.write('a', read_only), 0o444)
        wanted = {f'a/{linked}': adopt.LINKED, f'a/{plain}': adopt.TAKE,
                  f'a/{read_only}': adopt.TAKE}
        found = self.look(glance=False)
        # To root nothing is closed.
        self.assertEqual(adopt.TAKE if os.geteuid() == 0 else
                         adopt.UNREADABLE, found.pop(f'a/{closed}'))
        self.assertEqual(wanted, found)

    @unittest.skipUnless(os.geteuid() == 0, 'needs root, to give files away')
    def test_what_the_agents_user_may_read(self):
        """Whose the label is where no agent is here to be asked."""
        user, group = 64061, 64062
        own = os.path.join(self.paths['a'], '.predella')
        os.mkdir(own)
        os.chown(own, user, group)
        for mode, owner, kind in (
                (0o400, (user, 0), adopt.TAKE),
                (0o040, (user, group), adopt.UNREADABLE),
                (0o640, (0, group), adopt.TAKE),
                (0o604, (0, group), adopt.UNREADABLE),
                (0o600, (0, 0), adopt.UNREADABLE),
                (0o444, (0, 0), adopt.TAKE)):
            path = self.write('a', str(uuid.uuid4()))
            os.chown(path, *owner)
            os.chmod(path, mode)
            name = os.path.relpath(path, self.top)
            self.assertEqual(kind, self.look(glance=False)[name],
                             f'{mode:o} {owner}')

    def test_one_directory_by_several_paths(self):
        link = os.path.join(self.top, 'link')
        os.symlink(self.paths['a'], link)
        image = self.image(f'file://{link}/ID')
        self.write('a', image)
        names = (self.paths['a'], link, self.paths['a'] + '/')
        code, out, err = self.run_tool(
            'adopt', *names, '--dry-run', '--settle', '0', '--database',
            self.url)
        self.assertEqual(0, code)
        self.assertEqual(1, out.count(image))
        self.assertRegex(out, f'{image} +3 +image')
        for name in names[1:]:
            self.assertIn(f'{name} is the same directory as {names[0]}', err)

    def test_where_glance_has_a_mount_elsewhere(self):
        image = self.image('file:///var/lib/glance/images/ID')
        self.write('a', image)
        self.assertEqual({f'a/{image}': adopt.CONFLICT}, self.look())
        self.assertEqual({f'a/{image}': adopt.TAKE}, self.look(
            directories=['a=/var/lib/glance/images']))
        self.assertEqual({f'a/{image}': adopt.CONFLICT}, self.look(
            directories=['b=/var/lib/glance/images']))

    def test_what_the_cluster_has(self):
        here, elsewhere = str(uuid.uuid4()), str(uuid.uuid4())
        self.write('a', here)
        self.write('a', elsewhere)
        self.cluster.add(here, 'a')
        self.cluster.add(elsewhere, 'b')
        self.assertEqual({f'a/{here}': adopt.ALREADY,
                          f'a/{elsewhere}': adopt.CONFLICT},
                         self.look(glance=False))

    def test_only_directories_of_mounts_that_are_well(self):
        with self.assertRaisesRegex(Failed, 'mount init --with-images'):
            self.look(paths=[self.top])
        self.cluster.health = 'HEALTH_HUNG'
        with self.assertRaisesRegex(Failed, 'HUNG'):
            self.look()

    def test_command(self):
        good = self.image(f'file://{self.paths["a"]}/ID', md5='good')
        bad = self.image(f'file://{self.paths["a"]}/ID', md5='bad')
        for image in (good, bad):
            self.write('a', image)
        arguments = ('adopt', self.paths['a'], '--database', self.url,
                     '--settle', '0')
        code, out, _ = self.run_tool(*arguments, '--dry-run')
        self.assertEqual(0, code)
        self.assertIn(good, out)
        self.assertEqual([], self.cluster.adopted)
        code, out, err = self.run_tool(*arguments)
        self.assertEqual(1, code)
        self.assertIn(f'{bad}: it is another', out)
        self.assertIn('1 taken in, 1 not', err)
        self.assertEqual(1, self.cluster.listed_again)
        self.assertIn(('a', good, os.path.join(self.paths['a'], good), 3,
                       {'md5': 'good'}), self.cluster.adopted)


class AuditTest(ToolCase):
    def test_leaks_and_missing_data(self):
        good = self.image(f'predella://fast/ID/{KEY}')
        adopted = self.image(f'file://{self.paths["b"]}/ID')
        lost = self.image(f'predella://fast/ID/{KEY}', name='lost one')
        nowhere = self.image(f'predella://fast/ID/{KEY}', owner='someone')
        other = self.image(f'predella://fast/ID/{"f" * 32}')
        leak, young = str(uuid.uuid4()), str(uuid.uuid4())
        self.cluster.add(good, 'a')
        self.cluster.add(adopted, 'b')
        self.cluster.add(lost, 'a')
        self.cluster.rows[lost]['health'] = 'IMAGE_HEALTH_LOST'
        self.cluster.add(other, 'a')
        self.cluster.add(leak, 'a')
        self.cluster.add(young, 'a', hours=0)
        code, out, err = self.run_tool('audit', '--database', self.url)
        self.assertEqual(6, code)
        self.assertIn('2 images that no row', err)
        self.assertIn('3 rows of Glance', err)
        leaks, missing = out.split('STATUS')
        self.assertEqual({leak, other},
                         {one for one in self.cluster.rows if one in leaks})
        for image in (lost, nowhere, other):
            self.assertIn(image, missing)
        self.assertIn('lost one', missing)
        self.assertIn('someone', missing)

    def test_one_copy_in_two_rows(self):
        """As two stores of one cluster made them once."""
        image = self.image(f'predella://fast/ID/{KEY}')
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute('INSERT INTO image_locations (image_id, value, '
                       'meta_data) VALUES (?, ?, ?)',
                       (image, f'predella://twin/{image}/{KEY}', '{}'))
            db.commit()
        self.cluster.add(image, 'a')
        code, out, err = self.run_tool('audit', '--database', self.url)
        self.assertEqual(6, code)
        self.assertIn('0 images that no row', err)
        self.assertIn('rows 1 and 2 of image_locations are one copy', out)
        # What it says next helps.
        self.assertIn('next (one copy): predella glance relocate', err)
        plan = os.path.join(self.top, 'plan')
        for arguments in (('--store', 'fast', '--plan', plan),
                          ('--apply', plan, '--yes')):
            self.assertEqual(0, self.run_tool(
                'relocate', *arguments, '--database', self.url)[0])
        self.assertEqual((0, ''), self.run_tool(
            'audit', '--database', self.url)[:2])

    def test_nothing_to_say(self):
        self.cluster.add(self.image(f'predella://fast/ID/{KEY}'), 'a')
        code, out, _ = self.run_tool('audit', '--database', self.url)
        self.assertEqual((0, ''), (code, out))

    def test_impact_names_images_and_owners(self):
        image = self.image(name='web\x1b[31m', owner='project-7')
        unknown = str(uuid.uuid4())
        self.cluster.add(image, 'a')
        self.cluster.add(unknown, 'a')
        self.cluster.add(self.image(name='not there'), 'b')
        code, out, _ = self.run_tool('impact', 'a', '--database', self.url)
        self.assertEqual(0, code)
        self.assertIn('on a: 2 images', out)
        line, = (one for one in out.splitlines() if image in one)
        self.assertEqual(['active', 'project-7', 'web?[31m'],
                         line.split()[-3:])
        self.assertRegex(out, f'{unknown} .* not in Glance')
        self.assertNotIn('not there', out)

    def test_impact_as_json(self):
        image = self.image(name='web', owner='project-7', hidden=True)
        unknown = str(uuid.uuid4())
        for one in (image, unknown):
            self.cluster.add(one, 'a')
        code, out, _ = self.run_tool('impact', 'a', '-o', 'json', '--database',
                                     self.url)
        self.assertEqual(0, code)
        said = json.loads(out)
        self.assertEqual('2', said['imageCount'])
        self.assertEqual({
            f'images/{image}': {'name': 'web', 'owner': 'project-7',
                                'status': 'active', 'hidden': True},
            f'images/{unknown}': None},
            {one['name']: one['glance'] for one in said['images']})

    def test_hidden_images_are_named(self):
        hidden = self.image(name='old', owner='p', hidden=True)
        shown = self.image(name='new', owner='p')
        for image in (hidden, shown):
            self.cluster.add(image, 'a')
        said = f'{hidden} .*  active, hidden  p +old\n'
        code, out, err = self.run_tool('impact', 'a', '--database', self.url)
        self.assertEqual((0, ''), (code, err))
        self.assertRegex(out, said)
        self.assertRegex(out, f'{shown} .*  active +p +new\n')
        paths = []
        for name, lists in (
                ('export', self.run_tool('export', '--database', self.url)[1]),
                ('listed', [{'id': shown, 'name': 'new', 'owner': 'p',
                             'status': 'active', 'os_hidden': False}]),
                ('more', [{'id': hidden, 'name': 'old', 'owner': 'p',
                           'status': 'active', 'os_hidden': True}])):
            paths.append(os.path.join(self.top, name))
            with open(paths[-1], 'w', encoding='utf-8') as stream:
                stream.write(lists if isinstance(lists, str) else
                             json.dumps({'images': lists}))
        export, listed, more = paths
        for files in ((export,), (listed, more)):
            code, out, err = self.run_tool(
                'impact', 'a', *(f'--export={path}' for path in files))
            self.assertEqual((0, ''), (code, err))
            self.assertRegex(out, said)
        _, out, err = self.run_tool('impact', 'a', '--export', listed)
        self.assertRegex(out, f'{hidden} .* not in Glance')
        self.assertIn('os_hidden=true', err)

    def test_from_files_instead_of_the_database(self):
        image = self.image(f'predella://fast/ID/{KEY}', name='x', owner='p',
                           md5='m')
        self.cluster.add(image, 'a')
        code, out, _ = self.run_tool('export', '--database', self.url)
        self.assertEqual(0, code)
        path = os.path.join(self.top, 'export')
        listing = [{'ID': image, 'Name': 'x', 'Project': 'p',
                    'Status': 'active', 'Size': 3, 'Checksum': 'm'}]
        answer = {'images': [{'id': image, 'name': 'x', 'owner': 'p',
                              'status': 'active', 'size': 3}]}
        for text in (out, json.dumps(listing), json.dumps(answer)):
            with open(path, 'w', encoding='utf-8') as stream:
                stream.write(text)
            self.assertRegex(self.run_tool('impact', 'a', '--export', path)[1],
                             f'{image} .* active +p +x')
            # What has no locations says nothing of them.
            self.assertEqual(0 if text is out else 1, self.run_tool(
                'audit', '--export', path)[0])
        # Locations as the API shows them say nothing of rows; and one page is
        # no list.
        shown = {**answer['images'][0], 'locations': [
            {'url': 'file:///x', 'metadata': {}}]}
        before = {**answer['images'][0], 'locations': [
            {'row': 1, 'value': 'file:///x', 'meta': {'store': 'old'}}]}
        for text in ({'images': [shown]}, {'images': [before]},
                     {**answer, 'next': '/v2/images?marker=x'}):
            with open(path, 'w', encoding='utf-8') as stream:
                json.dump(text, stream)
            self.assertEqual(1, self.run_tool('audit', '--export', path)[0])
        self.assertEqual(1, self.run_tool('impact', 'a', '--export', path)[0])
        with open(path, 'w', encoding='utf-8') as stream:
            stream.write('[{}]')
        self.assertEqual(1, self.run_tool('audit', '--export', path)[0])

    def test_a_database_that_is_not_there(self):
        secret = 'sqlite:////nowhere/at-all?password=secret'
        code, _, err = self.run_tool('audit', '--database', secret)
        self.assertEqual(1, code)
        self.assertNotIn('secret', err)
        self.assertEqual(1, self.run_tool('audit', '--config', '/nowhere')[0])


if __name__ == '__main__':
    unittest.main()
