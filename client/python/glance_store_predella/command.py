"""predella-glance: what predella adopt, glance and mount impact --glance run.

Exit codes are those of predella: 0 done, 1 failed, 2 used wrongly, 6 not as
it should be.
"""
import argparse
import collections
import json
import os
import sys

from glance_store_predella import adopt
from glance_store_predella import audit
from glance_store_predella import audit_command
from glance_store_predella import cluster as clusters
from glance_store_predella import datadirs
from glance_store_predella import glance_db
from glance_store_predella import output
from glance_store_predella import relocate_command
from glance_store_predella import sources
from glance_store_predella.cluster import Failed
from glance_store_predella.output import say
from glance_store_predella.output import table


def _adopt(args):
    cluster = clusters.Cluster(args.endpoint)
    glance = None
    if args.export or args.database or args.config or os.path.exists(
            glance_db.DEFAULT_CONF):
        glance = sources.source(args).images()
    mounts, again = adopt.mounts_at(cluster, args.paths)
    for path, first in again:
        say(f'note: {path} is the same directory as {first}: looked at once')
    found = adopt.look(cluster, mounts, glance, args.settle, args.directory)
    table(('FILE', 'BYTES', 'IS', ''),
          [(one.path, '-' if one.size is None else str(one.size), one.kind,
            one.detail) for one in sorted(found, key=lambda f: f.path)])
    count = collections.Counter(one.kind for one in found)
    say(', '.join(f'{number} {kind}' for kind, number in
                  sorted(count.items())) or 'nothing is there')
    if glance is None:
        say('note: nothing was compared with Glance: --config FILE, '
            '--database URL or --export FILE does that')
    if args.dry_run:
        say('next: the same without --dry-run takes in what is an "image"')
        return output.DONE
    failed = 0
    for one, why in adopt.take(cluster, found, glance):
        failed += why is not None
        print(f'{one.path}: {"taken in" if why is None else why}',
              flush=True)
    taken = count[adopt.TAKE] - failed
    say(f'{taken} taken in, {failed} not, {count[adopt.ALREADY]} were already')
    if taken or count[adopt.ALREADY]:
        say('next: predella glance relocate --store ID --plan FILE')
    return output.FAILED if failed else output.DONE


def _impact(args):
    cluster = clusters.Cluster(args.endpoint)
    impact = cluster.impact(args.names)
    source = sources.source(args)
    glance = source.images()
    # What has locations is of the database, and has the hidden ones.
    if args.export and source.without_locations and not any(
            one.hidden for one in glance.values()):
        say('note: no list here has hidden images: one of GET '
            '/v2/images?os_hidden=true may be given besides, with another '
            '--export')
    if args.output == 'json':
        json.dump(audit.impact_json(impact, glance), sys.stdout, indent=1)
        print()
        return output.DONE
    rows = list(audit.impact_rows(impact, glance))
    print(f'on {", ".join(args.names)}: {impact["imageCount"]} images, '
          f'{impact["imageBytes"]} bytes; no copy elsewhere: '
          f'{impact["onlyCopyCount"]}')
    table(('IMAGE', 'BYTES', 'ELSEWHERE', 'STATUS', 'OWNER', 'NAME'), rows)
    return output.DONE


def _export(args):
    glance_db.dump(sources.database(args).images(), sys.stdout)
    return output.DONE


def _datadirs(args):
    path = args.config or glance_db.DEFAULT_CONF
    store = args.store or datadirs.only_file_store(path)
    if not datadirs.has_section(path, store):
        raise Failed(f'{path} has no section [{store}]: say --store SECTION')
    directories = datadirs.read(path, store)
    if not directories:
        raise Failed(f'{path}: [{store}] has neither filesystem_store_datadir '
                     'nor filesystem_store_datadirs')
    if directories == [(datadirs.DEFAULT, 0)]:
        say(f'note: [{store}] is on {datadirs.DEFAULT}, which is Glance\'s '
            'default')
    turned = datadirs.turned_round(directories)
    table(('DIRECTORY', 'GLANCE, HIGHEST FIRST', 'PREDELLA, LOWEST FIRST'),
          [(path, str(old), str(new)) for (path, old), (_, new)
           in zip(directories, turned)], sys.stderr)
    if datadirs.is_thin(path, store):
        print('filesystem_thin_provisioning is on: give predella serve --thin '
              'for the same', file=sys.stderr)
    print(','.join(f'{path}:{priority}' for path, priority in turned))
    return output.DONE


def _parser():
    parser = argparse.ArgumentParser(
        prog='predella-glance', description='Predella and the images of '
        'Glance: see docs/glance.md.')
    commands = parser.add_subparsers(dest='command', required=True)
    of_cluster = argparse.ArgumentParser(add_help=False)
    of_cluster.add_argument('--endpoint', help='the coordinator')
    of_database = argparse.ArgumentParser(add_help=False)
    of_database.add_argument(
        '--config', help='a glance-api.conf with [database] connection, and '
        'the stores: those of type file for audit, and which are of another '
        'cluster')
    of_database.add_argument(
        '--database', help='SQLAlchemy URL of Glance\'s database')
    of_glance = argparse.ArgumentParser(add_help=False,
                                        parents=[of_database])
    of_glance.add_argument(
        '--export', action='append', metavar='FILE',
        help='instead: a file from predella glance export, from GET '
        '/v2/images, or from openstack image list --long -f json; may be '
        'repeated: for a list of the hidden images')
    of_places = argparse.ArgumentParser(add_help=False)
    of_places.add_argument(
        '--directory', action='append', default=[], metavar='MOUNT=/PATH',
        help='where Glance has a mount, if elsewhere than its agent')

    one = commands.add_parser(
        'adopt', parents=[of_cluster, of_glance, of_places],
        help='take in what Glance\'s filesystem store wrote')
    one.add_argument('paths', nargs='+', metavar='PATH')
    one.add_argument('--dry-run', action='store_true')
    one.add_argument('--settle', type=float, default=300, metavar='SECONDS',
                     help='only files unchanged for so long (300)')
    one.set_defaults(run=_adopt)

    one = commands.add_parser(
        'relocate', parents=[of_cluster, of_glance, of_places],
        help='change Glance\'s location rows, by a plan')
    one.add_argument('--store', help='id of the store that the rows get')
    one.add_argument('--to-file', action='store_true',
                     help='back: from predella:// to file://')
    one.add_argument('--plan', metavar='FILE', help='written; never over one')
    one.add_argument('--sql', action='store_true',
                     help='print the plan as statements; with --apply or '
                     '--undo: that, and change nothing')
    one.add_argument('--apply', metavar='FILE')
    one.add_argument('--undo', metavar='FILE')
    one.add_argument('--yes', action='store_true')
    one.set_defaults(run=relocate_command.run)

    one = commands.add_parser(
        'audit', parents=[of_cluster, of_glance, of_places],
        help='data without a row in Glance, rows without data, and the files '
        'of Glance\'s own store')
    one.add_argument('--older-than', type=float, default=audit.YOUNG_SECONDS,
                     metavar='SECONDS', help='only such data (3600)')
    one.add_argument('--read', action='store_true',
                     help='read the files of Glance\'s own store, and compare '
                     'with its hashes')
    one.set_defaults(run=audit_command.run)

    one = commands.add_parser(
        'impact', parents=[of_cluster, of_glance],
        help='the images on mounts, by name and owner')
    one.add_argument('names', nargs='+', metavar='MOUNT')
    one.add_argument('-o', '--output', choices=('table', 'json'),
                     default='table', help='json: what predella mount impact '
                     '-o json prints, with what Glance has of each image')
    one.set_defaults(run=_impact)

    one = commands.add_parser('export', parents=[of_database],
                              help='print what the others need of Glance')
    one.set_defaults(run=_export)

    one = commands.add_parser(
        'datadirs', help='the directories of Glance\'s own store, for predella '
        'serve')
    one.add_argument('--config', help='a glance-api.conf '
                     f'({glance_db.DEFAULT_CONF})')
    one.add_argument('--store', metavar='SECTION',
                     help='where there are several stores of type file')
    one.set_defaults(run=_datadirs)
    return parser


def main(arguments=None):
    args = _parser().parse_args(arguments)
    try:
        return args.run(args)
    except Failed as e:
        say(f'error: {e}')
        return output.FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return output.FAILED


if __name__ == '__main__':
    sys.exit(main())
