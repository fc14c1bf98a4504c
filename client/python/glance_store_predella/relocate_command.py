"""predella glance relocate."""
from glance_store_predella import cluster as clusters
from glance_store_predella import output
from glance_store_predella import plans
from glance_store_predella import relocate
from glance_store_predella import sources
from glance_store_predella.cluster import Failed
from glance_store_predella.output import say
from glance_store_predella.output import table


def run(args):
    if args.apply or args.undo:
        return _apply(args)
    if not args.store or not args.plan:
        raise Failed('relocate makes a plan (--store ID --plan FILE), or '
                     'applies one (--apply FILE --yes, --undo FILE --yes)')
    cluster = clusters.Cluster(args.endpoint)
    places = relocate.Places(cluster.mounts(), args.directory)
    make = relocate.plan_to_file if args.to_file else relocate.plan_to_predella
    changes, left = make(args.store, places, cluster.images(),
                         sources.source(args, locations=True).each())
    plans.write_plan(args.plan, changes)
    if args.sql:
        for line in plans.statements(changes):
            print(line)
    else:
        # Without the new one's key.
        table(('IMAGE', 'ROW', 'FROM', 'TO'),
              [(one['image'], str(one['row']), _no_key(one['old']),
                _no_key(one['new']) if one['new'] is not None
                else '(the row goes: another one names the same data)')
               for one in changes])
    for image, why in left:
        say(f'left as it is: {image}: {why}')
    say(f'{len(changes)} rows to change, {len(left)} left; nothing is '
        'changed yet')
    if changes:
        say(f'next: predella glance relocate --apply {args.plan} --yes')
    return output.DONE


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
        return output.DONE
    if not args.yes:
        say(f'{len(changes)} rows would be changed; --yes does it')
        return output.USAGE
    changed, there, others = plans.apply_plan(sources.database(args), changes)
    print(f'{changed} rows changed, {there} were changed already')
    for one in others:
        kept = one['kept'] and (f', or row {one["kept"]["row"]}, which is of '
                                'the same data,')
        say(f'left as it is: {one["image"]}: row {one["row"]}{kept or ""} is '
            'not as the plan saw it')
    return output.FAILED if others else output.DONE
