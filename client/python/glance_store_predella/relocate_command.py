"""predella glance relocate."""
from glance_store_predella import cluster as clusters
from glance_store_predella import datadirs
from glance_store_predella import other_clusters
from glance_store_predella import output
from glance_store_predella import plans
from glance_store_predella import relocate
from glance_store_predella import sources
from glance_store_predella.cluster import Failed
from glance_store_predella.output import say
from glance_store_predella.output import table


_OF_A_PLAN = ('store', 'plan', 'to_file', 'directory', 'export')


def _misuse(args):
    """Why these options are not for one another, or None: one that is passed
    over may be what was meant."""
    given = [name for name in ('apply', 'undo') if getattr(args, name)]
    if len(given) == 2:
        return ('--apply changes the rows as a plan has them, --undo turns them '
                'round: say one of the two')
    if not given:
        if args.yes:
            return ('--yes is for --apply and --undo: making a plan changes '
                    'nothing')
        return None if args.store and args.plan else (
            'relocate makes a plan (--store ID --plan FILE), or applies one '
            '(--apply FILE --yes, --undo FILE --yes)')
    others = [f'--{name.replace("_", "-")}' for name in _OF_A_PLAN
              if getattr(args, name)]
    if args.sql and args.yes:
        return ('--sql prints the statements and changes nothing, --yes changes '
                'the rows: say one of the two')
    if others:
        return (f'{", ".join(others)}: for making a plan, and --{given[0]} '
                'takes one as it is')
    return None


def run(args):
    misuse = _misuse(args)
    if misuse is not None:
        say(f'error: {misuse}')
        return output.USAGE
    if args.apply or args.undo:
        return _apply(args)
    cluster = clusters.Cluster(args.endpoint)
    places = relocate.Places(cluster.mounts(), args.directory)
    others = other_clusters.of_configuration(cluster,
                                             sources.configuration(args))
    if args.store in others.stores:
        raise Failed(
            f'store {args.store} is of another cluster than the one that is '
            f'asked: --endpoint {others.stores[args.store]} asks that one')
    if args.store in others.unasked and others.several:
        raise Failed(
            f'store {args.store} can not be asked which cluster it is of, and '
            'rows may only be given to a store of this one (from a host that '
            'does not reach it: --database instead of --config): '
            f'{others.unasked[args.store]}')
    make = relocate.plan_to_file if args.to_file else relocate.plan_to_predella
    changes, left = make(args.store, places, cluster.images(),
                         sources.source(args, locations=True).each(), others)
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
    others.say()
    _say_of_store(args)
    say(f'{len(changes)} rows to change, {len(left)} left; nothing is '
        'changed yet')
    if changes:
        say(f'next: predella glance relocate --apply {args.plan} --yes')
    return output.DONE


def _say_of_store(args):
    path = sources.configuration(args)
    kind = 'file' if args.to_file else 'predella'
    if path and not datadirs.store_of_type(path, args.store, kind):
        say(f'warning: {path} has no store {args.store} of type {kind}: until '
            'it has, Glance can not read an image whose row names it')


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
