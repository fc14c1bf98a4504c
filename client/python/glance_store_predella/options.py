"""The options of a predella store, in its own section of glance-api.conf."""
from oslo_config import cfg

OPTIONS = [
    cfg.StrOpt('predella_endpoint',
               sample_default='unix:/var/lib/predella/run/coordinator.sock',
               help="""
Address of the Predella coordinator.

``predella serve`` prints it and writes it to ``/run/predella/endpoint``.

Possible values:

* ``unix:`` and the absolute path of a socket
* ``HOST:PORT``

Required. Two stores may not have the same endpoint: one cluster is one
store.
"""),
    cfg.ListOpt('multifilesystem_store_datadir',
                help="""
Directories of the store with their priorities, lower is preferred:
``/var/glance/store-1:100,/var/glance/store-2:200``.

Not required, and it decides nothing: images lie where the service puts them.
``predella serve --glance-conf`` takes its directories from this option. At the
first upload of a process the option is compared with the running service, and
a difference is logged as a warning.
"""),
    cfg.IntOpt('predella_write_timeout',
               default=60, min=1, max=3600,
               help="""
For how many seconds an upload goes on trying while the coordinator is away, or
the agent that has begun to take it. The time begins anew with every message
from an agent, so a slow upload is not ended by it. Afterwards the upload is
answered with 503.

Where the coordinator answers and has no directory to begin in, as while no
agent is there, that is after 15 seconds, or after this time where that is less.
An agent whose connection is open and that says nothing is given up after 30
seconds.
"""),
    cfg.IntOpt('predella_read_timeout',
               default=30, min=1, max=3600,
               help="""
For how many seconds a download, a delete or a question for the size goes on
trying while the coordinator is away, and a download while no agent that has
the image answers. Glance tries the next location of the image, or answers with
503, only afterwards. A mount that the service calls out is not waited for: an
agent that says nothing is UNREACHABLE after 15 seconds. A delete that no agent
hears of fails after 2 seconds; it is done in the index and is to be repeated.
"""),
    cfg.StrOpt('predella_local_reads',
               default='auto', choices=['auto', 'never'],
               help="""
Whether downloads read the open file of an image that lies on this host.

Its agent hands out the file where the mount is a local file system (ext4, XFS,
Btrfs, F2FS, tmpfs); every MiB is checked as ever. It is several times as fast.
What goes wrong with it is read through the agent.

Possible values:

* ``auto``: wherever an agent gives it
* ``never``: always through the agent
"""),
]


def list_opts():
    """For oslo-config-generator, namespace glance_store_predella."""
    return [('predella', OPTIONS)]
