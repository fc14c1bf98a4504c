"""gRPC as users meet it: every daemon describes all it speaks, says its
health service by service, and its errors can be read by strangers."""
import json
import os
import unittest

from cluster import Cluster, run, wait_until
from probe import Answer, grpcurl

COORDINATOR = ('ImageService', 'MountService', 'ClusterService')
ERROR_DETAILS = ('google.rpc.ErrorInfo', 'google.rpc.RetryInfo',
                 'google.rpc.BadRequest')


@unittest.skipUnless(grpcurl(), 'grpcurl is not here')
class ReflectionTest(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(())
        self.addCleanup(self.cluster.stop)
        sockets = self.cluster.sockets
        self.cluster.coordinator.argv += ['--health-listen',
                                          f'unix:{sockets}/ch']
        self.cluster.add_mount('store-1', f'{self.cluster.top}/store-1', 100,
                               ('--health-listen', f'unix:{sockets}/ah'))
        os.mkdir(self.cluster.paths['store-1'])
        self.cluster.start()
        self.services = {
            'c': [f'predella.v1.{s}' for s in COORDINATOR],
            'store-1': ['predella.v1.ChunkService']}

    def grpcurl(self, socket, *args, data=None):
        flags = ['-d', json.dumps(data)] if data is not None else []
        return run([grpcurl(), '-plaintext', '-unix', '-format-error',
                    '-connect-timeout', '1', *flags,
                    f'{self.cluster.sockets}/{socket}', *args])

    def health(self, socket, service):
        result = self.grpcurl(socket, 'grpc.health.v1.Health/Check',
                              data={'service': service})
        answer = Answer(result.text, result.err, result.code)
        if answer.code != 'OK':
            return answer.code
        return answer.responses[0].get('status', 'UNKNOWN')

    def test_everything_is_described(self):
        described = 0
        for socket, services in self.services.items():
            listed = self.grpcurl(socket, 'list').text.split()
            for service in (*services, 'grpc.health.v1.Health',
                            'grpc.reflection.v1alpha.ServerReflection'):
                self.assertIn(service, listed)
            for service in listed:
                for method in self.grpcurl(socket, 'list',
                                           service).text.split():
                    text = self.grpcurl(socket, 'describe', method)
                    self.assertEqual(text.code, 0, text.err)
                    for word in text.text.replace('(', ' ').split():
                        if word.startswith('.'):
                            message = self.grpcurl(socket, 'describe', word)
                            self.assertEqual(message.code, 0, message.err)
                            described += 1
            for detail in ERROR_DETAILS:
                text = self.grpcurl(socket, 'describe', detail)
                self.assertIn('message', text.text, text.err)
        print(f'{described} messages described')
        self.assertGreater(described, 30)

    def test_health_of_each_service_on_both_ports(self):
        for socket, second in (('c', 'ch'), ('store-1', 'ah')):
            for port in (socket, second):
                for service in ('', 'liveness', *self.services[socket]):
                    with self.subTest(port=port, service=service):
                        self.assertEqual(self.health(port, service),
                                         'SERVING')
                self.assertEqual(self.health(port, 'no.such.Service'),
                                 'NOT_FOUND')
            # The second port serves health and nothing else.
            listed = self.grpcurl(second, 'list').text.split()
            for service in self.services[socket]:
                self.assertNotIn(service, listed)
                method = ('GetCluster' if 'Cluster' in service else 'ReadImage')
                result = self.grpcurl(second, f'{service}/{method}', data={})
                self.assertNotEqual(result.code, 0)

    def test_health_of_an_agent_without_a_coordinator(self):
        """Alive, but not ready to take bytes: a restart would not help."""
        self.cluster.coordinator.kill()
        agent = self.cluster.agents['store-1']
        agent.kill()
        agent.start()
        print('agent started without a coordinator')
        for port in ('store-1', 'ah'):
            wait_until(f'{port} answers', lambda p=port:
                       self.health(p, 'liveness') == 'SERVING')
            self.assertEqual(
                self.health(port, 'predella.v1.ChunkService'), 'NOT_SERVING')
        self.cluster.coordinator.start()
        for port in ('store-1', 'ah'):
            wait_until(f'{port} serves again', lambda p=port: self.health(
                p, 'predella.v1.ChunkService') == 'SERVING')

    def test_error_details_are_resolved(self):
        result = run([grpcurl(), '-plaintext', '-unix', '-d',
                      '{"name": "../x"}', f'{self.cluster.sockets}/c',
                      'predella.v1.ImageService/GetImage'])
        self.assertNotEqual(result.code, 0)
        self.assertIn('Code: InvalidArgument', result.err)
        for word in ('google.rpc.ErrorInfo', '"reason":"INVALID_ARGUMENT"',
                     '"domain":"predella.io"'):
            self.assertIn(word, result.err.replace('": "', '":"'))


if __name__ == '__main__':
    unittest.main(verbosity=2)
