"""Two hosts that mount one export and serve it under one name: one of them
does, the other is refused and told by whom."""
import os
import re
import unittest

from cluster import Daemon, wait_until
from nfs_case import KIND, NfsTest
from nfs_server import Host, Mount

STARTS = 2
TOGETHER = 2


class TwoHostsTest(NfsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.other = Host('host2')
        cls.addClassCleanup(cls.other.end)
        cls.server.connect(cls.other, '10.9.1')

    def start_both(self):
        """`first` runs here and serves, `second` there and does not yet."""
        here = self.mount()
        there = Mount(here.export, '/mnt/there', KIND, self.other, '10.9.1')
        self.mounts.append(there)
        self.start(here)
        self.first = self.cluster.agents['store-1']
        argv = list(self.first.argv)
        argv[argv.index('--path') + 1] = there.path
        listen = argv.index('--listen') + 1
        argv[listen] = f'unix:{self.cluster.sockets}/second'
        self.second = Daemon('second', self.other.command(*argv),
                             self.cluster.top)
        self.addCleanup(self.second.kill)

    def refused(self, daemon, host, pid):
        code = daemon.process.wait(60)
        self.assertNotEqual(code, 0, daemon.log())
        said = daemon.log().splitlines()[-1]
        self.assertIn('in use by', said)
        self.assertRegex(said, rf'\b{host}\b')
        self.assertRegex(said, rf'\b{pid}\b')
        daemon.kill()
        self.injected += 1

    def published(self, daemon):
        if not os.path.exists(daemon.log_path):
            return 0
        return len(re.findall('image_published', daemon.log()))

    def test_the_second_is_refused(self):
        self.start_both()
        self.put()
        for _ in range(STARTS):
            self.second.start()
            self.put()
            self.refused(self.second, 'guest', self.first.process.pid)
        self.assertEqual(self.published(self.second), 0)
        # Its successor may: the lock goes with the process.
        self.first.kill()
        self.second.start()
        self.cluster.wait_ready(timeout=60)
        self.put()
        self.first.start()
        self.refused(self.first, 'host2', self.second.process.pid)
        self.check_stored()
        self.promised('second agents', STARTS + 1)

    def test_both_start_at_once(self):
        self.start_both()
        self.put()
        daemons = (self.first, self.second)
        winners = []
        for _ in range(TOGETHER):
            for daemon in daemons:
                daemon.kill()
            before = {d: self.published(d) for d in daemons}
            for daemon in daemons:
                daemon.start()
            wait_until('one of them ends', lambda: not all(
                d.running() for d in daemons), 60)
            winner, loser = daemons if self.first.running() else daemons[::-1]
            self.refused(loser, 'host2' if winner is self.second else 'guest',
                         winner.process.pid)
            self.cluster.wait_ready(timeout=60)
            self.put()
            self.assertEqual(self.published(loser), before[loser])
            self.assertEqual(self.published(winner), before[winner] + 1)
            winners.append(winner.name)
        self.check_stored()
        print(f'served by {winners}')
        self.promised('races', TOGETHER)


if __name__ == '__main__':
    unittest.main(verbosity=2)
