"""predella glance audit."""
import datetime

from glance_store_predella import audit
from glance_store_predella import cluster as clusters
from glance_store_predella import datadirs
from glance_store_predella import files
from glance_store_predella import other_clusters
from glance_store_predella import output
from glance_store_predella import relocate
from glance_store_predella import sources
from glance_store_predella.output import say
from glance_store_predella.output import table


def _old_directories(path):
    """Of the stores of type file in Glance's configuration."""
    return [directory for store in datadirs.file_stores(path)
            for directory, _ in datadirs.read(path, store)] if path else []


def run(args):
    now = datetime.datetime.now(datetime.timezone.utc)
    cluster = clusters.Cluster(args.endpoint)
    places = relocate.Places(cluster.mounts(), args.directory)
    source = sources.source(args, locations=True)
    images = cluster.images(hashes=False)
    configuration = sources.configuration(args)
    others = other_clusters.of_configuration(cluster, configuration)
    looker = files.Looker(places, images, _old_directories(configuration),
                          args.read)
    compared = audit.Audit(places, images, others, looker)
    compared.compare(source.each())
    looker.look_at_the_rest(now.timestamp(), args.older_than)
    leaked = compared.leaked(now, args.older_than)
    missing = compared.missing(source,
                               lambda: cluster.images(hashes=False))
    found = audit.still(source, looker.findings)
    _say_leaked(leaked)
    _say_missing(missing, configuration)
    others.say()
    _say_files(places, looker, found)
    _say_uploads(cluster.uploads(), source, now, args.older_than)
    if compared.pending:
        say(f'note: {compared.pending} images wait for Glance\'s scrubber '
            '(pending_delete): what is theirs is no leak')
    return output.NOT_HEALTHY if leaked or missing or found else output.DONE


def _say_leaked(leaked):
    say(f'{len(leaked)} images that no row of Glance refers to')
    if leaked:
        table(('IMAGE', 'BYTES', 'MOUNT', 'SINCE'),
              [(one.id, str(one.size), ','.join(one.mounts), one.created)
               for one in leaked])
        say('next: predella image stat ID; predella image rm ID removes one')


def _say_missing(missing, configuration):
    say(f'{len(missing)} rows of Glance whose data is not here, or is that '
        'of another row')
    if missing:
        table(('IMAGE', 'STATUS', 'OWNER', 'NAME', 'WHY'),
              [(one.id, one.status, one.owner or '-', one.name or '-', why)
               for one, why in missing])
    if any(relocate.ONE_COPY in why for _, why in missing):
        say(f'next ({relocate.ONE_COPY}): predella glance relocate --store '
            'ID --plan FILE takes all but one of such rows out')
    if missing and configuration is None:
        say('note: rows of a store of another cluster are told from these only '
            'with --config FILE, of a glance-api.conf that has the store')


def _say_files(places, looker, found):
    for directory, rows in sorted(looker.not_here.items()):
        mount = places.mount_at(directory)
        say(f'note: mount {mount} is HUNG: {rows} rows name files in '
            f'{directory} that were not looked at; next: predella mount stat '
            f'{mount}' if mount in places.hung else
            f'note: {directory} is not here: {rows} rows name files there '
            'that were not looked at; say --directory MOUNT=PATH, or ask on '
            "Glance's host")
    for directory, rows in looker.empty_directories():
        say(f'note: none of the {rows} files that rows name is in '
            f'{directory}: is its disk mounted?')
    if looker.encrypted:
        say(f'note: {looker.encrypted} locations are encrypted '
            '(metadata_encryption_key): their files were not looked at')
    say(f'{looker.looked_at} files of rows looked at, {len(found)} of these '
        'and of those beside them are not as they should be')
    if found:
        table(('IMAGE', 'FILE', 'BYTES', 'IN-GLANCE', 'IS'),
              [(one.image, one.path,
                '-' if one.size is None else str(one.size),
                '-' if one.wanted is None else str(one.wanted),
                f'{one.kind}: {one.detail}' if one.detail else one.kind)
               for one in found])
    kinds = {one.kind for one in found}
    for kind, what in files.NEXT.items():
        if kind in kinds:
            say(f'next ({kind}): {what}')


def _say_uploads(uploads, source, now, older_than):
    quiet, given_up = audit.quiet(uploads, source, now,
                                  min(older_than, audit.QUIET_SECONDS))
    if not quiet:
        return
    if given_up:
        say(f'{given_up} uploads that nobody goes on with, unseen by readers; '
            'each ends by itself at ENDS')
    if len(quiet) > given_up:
        say(f'{len(quiet) - given_up} uploads that were heard of in the last '
            f'{audit.QUIET_SECONDS} s: they may be going on, look again then')
    table(('IMAGE', 'UPLOAD', 'MOUNT', 'HEARD', 'ENDS', 'IN-GLANCE'), quiet)
    if given_up:
        say('next: predella upload abort UPLOAD ends one now that is not '
            'HEARD any more; what Glance has as saving stays so: openstack '
            'image delete IMAGE')
