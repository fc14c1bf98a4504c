"""predella-glance: what predella adopt, glance and mount impact --glance run.

Exit codes are those of predella: 0 done, 1 failed, 2 used wrongly, 6 not as
it should be.
"""
import argparse
import collections
import datetime
import os
import sys

from glance_store_predella import adopt
from glance_store_predella import audit
from glance_store_predella import cluster as clusters
from glance_store_predella import datadirs
from glance_store_predella import files
from glance_store_predella import glance_db
from glance_store_predella import plans
from glance_store_predella import relocate
from glance_store_predella.cluster import Failed

DONE, FAILED, USAGE, NOT_HEALTHY = 0, 1, 2, 6


def _table(header, rows, out=None):
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        line = '  '.join(cell.ljust(width)
                         for cell, width in zip(row, widths)).rstrip()
        # Names come from users: none may steer the terminal.
        print(''.join(c if c.isprintable() else '?' for c in line),
              file=out or sys.stdout)


def _say(text):
    print(text, file=sys.stderr)


def _database(args):
    return glance_db.Database(
        args.database or glance_db.connection_of(
            args.config or glance_db.DEFAULT_CONF))


def _source(args, locations=False):
    """A Database or an Export."""
    if not args.export:
        return _database(args)
    source = glance_db.Export(args.export)
    if locations and source.without_locations:
        raise Failed(f'{", ".join(source.without_locations)}: no locations: '
                     'predella glance export makes one that has them')
    return source


def _glance_images(args):
    return _source(args).images()


def _adopt(args):
    cluster = clusters.Cluster(args.endpoint)
    glance = None
    if args.export or args.database or args.config or os.path.exists(
            glance_db.DEFAULT_CONF):
        glance = _glance_images(args)
    mounts, again = adopt.mounts_at(cluster, args.paths)
    for path, first in again:
        _say(f'note: {path} is the same directory as {first}: looked at once')
    found = adopt.look(cluster, mounts, glance, args.settle, args.directory)
    _table(('FILE', 'BYTES', 'IS', ''),
           [(one.path, '-' if one.size is None else str(one.size), one.kind,
             one.detail) for one in sorted(found, key=lambda f: f.path)])
    count = collections.Counter(one.kind for one in found)
    _say(', '.join(f'{number} {kind}' for kind, number in
                   sorted(count.items())) or 'nothing is there')
    if glance is None:
        _say('note: nothing was compared with Glance: --config FILE, '
             '--database URL or --export FILE does that')
    if args.dry_run:
        _say('next: the same without --dry-run takes in what is an "image"')
        return DONE
    failed = 0
    for one, why in adopt.take(cluster, found, glance):
        failed += why is not None
        print(f'{one.path}: {"taken in" if why is None else why}',
              flush=True)
    taken = count[adopt.TAKE] - failed
    _say(f'{taken} taken in, {failed} not, {count[adopt.ALREADY]} were already')
    if taken or count[adopt.ALREADY]:
        _say('next: predella glance relocate --store ID --plan FILE')
    return FAILED if failed else DONE


def _relocate(args):
    if args.apply or args.undo:
        return _apply(args)
    if not args.store or not args.plan:
        raise Failed('relocate makes a plan (--store ID --plan FILE), or '
                     'applies one (--apply FILE --yes, --undo FILE --yes)')
    cluster = clusters.Cluster(args.endpoint)
    places = relocate.Places(cluster.mounts(), args.directory)
    make = relocate.plan_to_file if args.to_file else relocate.plan_to_predella
    changes, left = make(args.store, places, cluster.images(),
                         _source(args, locations=True).each())
    plans.write_plan(args.plan, changes)
    if args.sql:
        for line in plans.statements(changes):
            print(line)
    else:
        # Without the new one's key.
        _table(('IMAGE', 'ROW', 'FROM', 'TO'),
               [(one['image'], str(one['row']), _no_key(one['old']),
                 _no_key(one['new']) if one['new'] is not None
                 else '(the row goes: another one names the same data)')
                for one in changes])
    for image, why in left:
        _say(f'left as it is: {image}: {why}')
    _say(f'{len(changes)} rows to change, {len(left)} left; nothing is '
         'changed yet')
    if changes:
        _say(f'next: predella glance relocate --apply {args.plan} --yes')
    return DONE


def _no_key(value):
    return value.rsplit('/', 1)[0] + '/...' if value.startswith(
        'predella://') else value


def _apply(args):
    changes = plans.read_plan(args.apply or args.undo)
    if args.undo:
        changes = plans.turned_round(changes)
    if args.sql:
        for line in plans.statements(changes):
            print(line)
        return DONE
    if not args.yes:
        _say(f'{len(changes)} rows would be changed; --yes does it')
        return USAGE
    changed, there, others = plans.apply_plan(_database(args), changes)
    print(f'{changed} rows changed, {there} were changed already')
    for one in others:
        kept = one['kept'] and (f', or row {one["kept"]["row"]}, which is of '
                                'the same data,')
        _say(f'left as it is: {one["image"]}: row {one["row"]}{kept or ""} is '
             'not as the plan saw it')
    return FAILED if others else DONE


def _old_directories(args):
    """Of the stores of type file in Glance's configuration, where one is
    named or Glance's database comes from it."""
    if not args.config and (args.export or args.database):
        return []
    path = args.config or glance_db.DEFAULT_CONF
    return [directory for store in datadirs.file_stores(path)
            for directory, _ in datadirs.read(path, store)]


def _audit(args):
    now = datetime.datetime.now(datetime.timezone.utc)
    cluster = clusters.Cluster(args.endpoint)
    places = relocate.Places(cluster.mounts(), args.directory)
    source = _source(args, locations=True)
    images = cluster.images(hashes=False)
    looker = files.Looker(places, images, _old_directories(args), args.read)
    compared = audit.Audit(places, images, looker)
    compared.compare(source.each())
    looker.look_at_the_rest(now.timestamp(), args.older_than)
    leaked = compared.leaked(now, args.older_than)
    missing = compared.missing(source,
                               lambda: cluster.images(hashes=False))
    found = audit.still(source, looker.findings)
    _say_leaked(leaked)
    _say_missing(missing)
    _say_files(places, looker, found)
    _say_uploads(cluster.uploads(), source, now, args.older_than)
    if compared.pending:
        _say(f'note: {compared.pending} images wait for Glance\'s scrubber '
             '(pending_delete): what is theirs is no leak')
    return NOT_HEALTHY if leaked or missing or found else DONE


def _say_leaked(leaked):
    _say(f'{len(leaked)} images that no row of Glance refers to')
    if leaked:
        _table(('IMAGE', 'BYTES', 'MOUNT', 'SINCE'),
               [(one.id, str(one.size), ','.join(one.mounts), one.created)
                for one in leaked])
        _say('next: predella image stat ID; predella image rm ID removes one')


def _say_missing(missing):
    _say(f'{len(missing)} rows of Glance whose data is not here, or is that '
         'of another row')
    if missing:
        _table(('IMAGE', 'STATUS', 'OWNER', 'NAME', 'WHY'),
               [(one.id, one.status, one.owner or '-', one.name or '-', why)
                for one, why in missing])
    if any(relocate.ONE_COPY in why for _, why in missing):
        _say(f'next ({relocate.ONE_COPY}): predella glance relocate --store '
             'ID --plan FILE takes all but one of such rows out')


def _say_files(places, looker, found):
    for directory, rows in sorted(looker.not_here.items()):
        mount = places.mount_at(directory)
        _say(f'note: mount {mount} is HUNG: {rows} rows name files in '
             f'{directory} that were not looked at; next: predella mount stat '
             f'{mount}' if mount in places.hung else
             f'note: {directory} is not here: {rows} rows name files there '
             'that were not looked at; say --directory MOUNT=PATH, or ask on '
             "Glance's host")
    for directory, rows in looker.empty_directories():
        _say(f'note: none of the {rows} files that rows name is in '
             f'{directory}: is its disk mounted?')
    if looker.encrypted:
        _say(f'note: {looker.encrypted} locations are encrypted '
             '(metadata_encryption_key): their files were not looked at')
    _say(f'{looker.looked_at} files of rows looked at, {len(found)} of these '
         'and of those beside them are not as they should be')
    if found:
        _table(('IMAGE', 'FILE', 'BYTES', 'IN-GLANCE', 'IS'),
               [(one.image, one.path,
                 '-' if one.size is None else str(one.size),
                 '-' if one.wanted is None else str(one.wanted),
                 f'{one.kind}: {one.detail}' if one.detail else one.kind)
                for one in found])
    kinds = {one.kind for one in found}
    for kind, what in files.NEXT.items():
        if kind in kinds:
            _say(f'next ({kind}): {what}')


def _say_uploads(uploads, source, now, older_than):
    quiet = audit.quiet(uploads, source, now,
                        min(older_than, audit.QUIET_SECONDS))
    if not quiet:
        return
    _say(f'{len(quiet)} uploads that nobody goes on with, unseen by readers; '
         'each ends by itself at ENDS')
    _table(('IMAGE', 'UPLOAD', 'MOUNT', 'HEARD', 'ENDS', 'IN-GLANCE'), quiet)
    _say('next: predella upload abort UPLOAD ends one now; what Glance has as '
         'saving stays so: openstack image delete IMAGE')


def _impact(args):
    cluster = clusters.Cluster(args.endpoint)
    impact = cluster.impact(args.names)
    source = _source(args)
    glance = source.images()
    rows = list(audit.impact_rows(impact, glance))
    print(f'on {", ".join(args.names)}: {impact["imageCount"]} images, '
          f'{impact["imageBytes"]} bytes; no copy elsewhere: '
          f'{impact["onlyCopyCount"]}')
    _table(('IMAGE', 'BYTES', 'ELSEWHERE', 'STATUS', 'OWNER', 'NAME'), rows)
    # What has locations is of the database, and has the hidden ones.
    if args.export and source.without_locations and not any(
            one.hidden for one in glance.values()):
        _say('note: no list here has hidden images: one of GET '
             '/v2/images?os_hidden=true may be given besides, with another '
             '--export')
    return DONE


def _export(args):
    glance_db.dump(_database(args).images(), sys.stdout)
    return DONE


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
        _say(f'note: [{store}] is on {datadirs.DEFAULT}, which is Glance\'s '
             'default')
    turned = datadirs.turned_round(directories)
    _table(('DIRECTORY', 'GLANCE, HIGHEST FIRST', 'PREDELLA, LOWEST FIRST'),
           [(path, str(old), str(new)) for (path, old), (_, new)
            in zip(directories, turned)], sys.stderr)
    if datadirs.is_thin(path, store):
        print('filesystem_thin_provisioning is on: give predella serve --thin '
              'for the same', file=sys.stderr)
    print(','.join(f'{path}:{priority}' for path, priority in turned))
    return DONE


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
        'the stores of type file for audit')
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
    one.set_defaults(run=_relocate)

    one = commands.add_parser(
        'audit', parents=[of_cluster, of_glance, of_places],
        help='data without a row in Glance, rows without data, and the files '
        'of Glance\'s own store')
    one.add_argument('--older-than', type=float, default=audit.YOUNG_SECONDS,
                     metavar='SECONDS', help='only such data (3600)')
    one.add_argument('--read', action='store_true',
                     help='read the files of Glance\'s own store, and compare '
                     'with its hashes')
    one.set_defaults(run=_audit)

    one = commands.add_parser(
        'impact', parents=[of_cluster, of_glance],
        help='the images on mounts, by name and owner')
    one.add_argument('names', nargs='+', metavar='MOUNT')
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
        _say(f'error: {e}')
        return FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED


if __name__ == '__main__':
    sys.exit(main())
