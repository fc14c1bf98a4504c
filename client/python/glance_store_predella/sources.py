"""Where the commands of predella-glance have Glance's images from."""
from glance_store_predella import glance_db
from glance_store_predella.cluster import Failed


def database(args):
    return glance_db.Database(
        args.database or glance_db.connection_of(
            args.config or glance_db.DEFAULT_CONF))


def source(args, locations=False):
    """A Database or an Export."""
    if not args.export:
        return database(args)
    export = glance_db.Export(args.export)
    if locations and export.without_locations:
        raise Failed(f'{", ".join(export.without_locations)}: no locations: '
                     'predella glance export makes one that has them')
    return export


def configuration(args):
    """Path of the glance-api.conf that says what stores there are, where one
    is named or Glance's database comes from it; else None."""
    if not args.config and (args.export or args.database):
        return None
    return args.config or glance_db.DEFAULT_CONF
