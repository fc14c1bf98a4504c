"""Images over three directories: put, get, ls, stat, explain, rm."""
import os
import re
import subprocess
import tempfile
import unittest
import uuid

from cluster import MIB, ClusterTest, random_bytes, wait_until


def debian_images(directory):
    """The disk images of grub-rescue-pc, downloaded if need be."""
    def found(top):
        rescue = os.path.join(top, 'usr/lib/grub-rescue')
        return (sorted(os.path.join(rescue, n) for n in os.listdir(rescue))
                if os.path.isdir(rescue) else [])
    if found('/'):
        return found('/')
    subprocess.run('timeout 60 apt-get download -qq grub-rescue-pc && '
                   'dpkg -x grub-rescue-pc*.deb .', shell=True, check=False,
                   cwd=directory, capture_output=True)
    return found(directory)


class RoundTripTest(ClusterTest):
    def test_sizes_come_back_whole(self):
        for size in (0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 17):
            with self.subTest(size=size):
                data = random_bytes(size, size)
                image = self.cluster.put(data)
                self.assert_same(self.cluster.get(image), data, f'size {size}')
                self.assertEqual(self.cluster.where(image), ['store-1'])
                with open(os.path.join(self.cluster.paths['store-1'], image),
                          'rb') as f:
                    self.assert_same(f.read(), data, 'the plain file')

    def test_three_hundred_mib_from_a_file(self):
        with tempfile.TemporaryDirectory() as directory:
            source = os.path.join(directory, 'image.raw')
            block = random_bytes(MIB, 300)
            with open(source, 'wb') as f:
                for i in range(300):
                    f.write(i.to_bytes(8, 'little') + block[8:])
            image = self.cluster.cli('image', 'put', source).text.split()[-1]
            target = os.path.join(directory, 'back.raw')
            self.cluster.cli('image', 'get', image, '-o', target)
            self.assertEqual(
                subprocess.run(['cmp', source, target], check=False).returncode,
                0)

    def test_real_qcow2(self):
        with tempfile.TemporaryDirectory() as directory:
            raw = os.path.join(directory, 'disk.raw')
            with open(raw, 'wb') as f:
                f.write(random_bytes(9 * MIB, 42))
                f.truncate(64 * MIB)
            source = os.path.join(directory, 'disk.qcow2')
            subprocess.run(['qemu-img', 'convert', '-q', '-O', 'qcow2', raw,
                            source], check=True)
            image = self.cluster.cli('image', 'put', source).text.split()[-1]
            back = os.path.join(directory, 'back.qcow2')
            self.cluster.cli('image', 'get', image, '-o', back)
            stored = os.path.join(self.cluster.paths['store-1'], image)
            for copy in (stored, back):
                # Qemu checks its own structures and finds the same disk.
                for command in (('check', '-f', 'qcow2', copy),
                                ('compare', '-f', 'raw', '-F', 'qcow2', raw,
                                 copy)):
                    result = subprocess.run(
                        ['qemu-img', *command], check=False,
                        capture_output=True, text=True)
                    self.assertEqual(result.returncode, 0,
                                     result.stdout + result.stderr)

    def test_real_disk_images_of_a_debian_package(self):
        with tempfile.TemporaryDirectory() as directory:
            images = debian_images(directory)
            if not images:
                self.skipTest('grub-rescue-pc is neither installed nor to be '
                              'downloaded')
            for source in images:
                image = self.cluster.cli('image', 'put',
                                         source).text.split()[-1]
                with open(source, 'rb') as f:
                    data = f.read()
                print(f'{os.path.basename(source)}: {len(data)} bytes')
                self.assertGreater(len(data), MIB)
                self.assert_same(self.cluster.get(image), data, source)

    def test_ranges(self):
        data = random_bytes(3 * MIB + 5, 3)
        image = self.cluster.put(data)
        for offset, length in ((0, 1), (MIB - 1, 2), (MIB, MIB),
                               (3 * MIB, 5), (2 * MIB + 7, 0)):
            want = data[offset:offset + length] if length else data[offset:]
            got = self.cluster.get(image, '--offset', str(offset),
                                   '--length', str(length))
            self.assert_same(got, want, f'{length} bytes at {offset}')

    def test_lists_explains_and_deletes(self):
        ids = sorted(self.cluster.put(random_bytes(1000 + i, i))
                     for i in range(5))
        listed = self.cluster.cli('image', 'ls', '-o', 'json').json
        self.assertEqual(sorted(i['name'] for i in listed['images']),
                         [f'images/{i}' for i in ids])
        on_mount = self.cluster.cli('image', 'ls', '--mount', 'store-1').text
        for image in ids:
            self.assertIn(image, on_mount)
        empty = self.cluster.cli('image', 'ls', '--mount', 'store-2',
                                 '-o', 'json').json
        self.assertEqual(empty.get('images', []), [])
        explained = self.cluster.cli('image', 'explain', ids[0]).text
        self.assertIn('store-1', explained)
        self.assertIn('priority', explained)
        self.cluster.cli('image', 'rm', *ids[:2])
        gone = self.cluster.cli('image', 'stat', ids[0], check=False)
        self.assertEqual(gone.code, 3, gone.err)
        wait_until('the files of deleted images are unlinked',
                   lambda: self.cluster.files('store-1') == ids[2:])

    def test_an_id_of_the_users_own_and_a_second_one(self):
        wanted = str(uuid.uuid4())
        self.assertEqual(self.cluster.put(b'first', '--id', wanted), wanted)
        again = self.cluster.cli('image', 'put', '-', '--id', wanted,
                                 data=b'second', check=False)
        self.assertEqual(again.code, 5, again.err)
        self.assertEqual(self.cluster.get(wanted), b'first')

    def test_bad_ids_are_refused_with_a_sentence(self):
        for bad in ('../../etc/passwd', 'images/../x', 'A' * 36,
                    'not-a-uuid', '00000000-0000-0000-0000-00000000000G'):
            result = self.cluster.cli('image', 'stat', bad, check=False)
            self.assertNotEqual(result.code, 0, bad)
            self.assertIn('UUID', result.err, bad)

    def test_unknown_id_is_not_found(self):
        result = self.cluster.cli('image', 'get', str(uuid.uuid4()),
                                  check=False)
        self.assertEqual(result.code, 3, result.err)
        self.assertEqual(result.out, b'')

    def test_what_fits_nowhere_is_refused_with_the_numbers(self):
        # The size is announced; no byte needs to be there.
        with tempfile.TemporaryDirectory() as directory:
            source = os.path.join(directory, 'huge.raw')
            with open(source, 'wb') as f:
                f.truncate(8 << 40)
            result = self.cluster.cli('image', 'put', source, check=False)
        self.assertNotEqual(result.code, 0)
        self.assertRegex(result.err, re.compile('NO_SPACE_IN_CLUSTER|no mount'))
        self.assertRegex(result.err, r'\d+(\.\d+)? [GTM]iB')
        for name in self.cluster.paths:
            self.assertEqual(self.cluster.inflight(name), [])

    def test_placement_explain_is_a_dry_run(self):
        text = self.cluster.cli('placement', 'explain', '--size', '1MiB').text
        for name in self.cluster.paths:
            self.assertIn(name, text)
        self.assertEqual(self.cluster.files('store-1'), [])

    def test_cluster_status_and_doctor(self):
        self.assertEqual(self.cluster.cli('cluster', 'status').code, 0)
        self.assertEqual(self.cluster.cli('doctor').code, 0)


class CordonTest(ClusterTest):
    def test_cordoned_mount_takes_nothing_and_serves_what_it_has(self):
        image = self.cluster.put(b'before')
        self.cluster.cli('mount', 'cordon', 'store-1')
        other = self.cluster.put(b'after')
        self.assertEqual(self.cluster.where(other), ['store-2'])
        self.assertEqual(self.cluster.get(image), b'before')
        self.cluster.cli('mount', 'uncordon', 'store-1')
        self.assertEqual(self.cluster.where(self.cluster.put(b'x')),
                         ['store-1'])


class EvennessTest(ClusterTest):
    priorities = (100, 100, 100)

    def test_equal_priorities_take_turns(self):
        # One file system: the tie goes to the mount with fewer bytes of ours.
        counts = dict.fromkeys(self.cluster.paths, 0)
        for i in range(9):
            image = self.cluster.put(random_bytes(256 << 10, i))
            counts[self.cluster.where(image)[0]] += 1
        self.assertEqual(set(counts.values()), {3}, counts)


if __name__ == '__main__':
    unittest.main(verbosity=2)
