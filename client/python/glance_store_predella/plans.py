"""Plans of relocate.py: files, what applies them, and as SQL.

Exactly a plan is applied, each row only while it is as the plan saw it. So it may
be broken off, begun again, and turned round.
"""
import json
import os

from glance_store_predella.cluster import Failed

BATCH = 100
FORMAT = 3


def write_plan(path, changes):
    """Never over another: it may be what turns an earlier one round."""
    try:
        # It has keys in it.
        with open(path, 'x', encoding='utf-8',
                  opener=lambda name, flags: os.open(name, flags, 0o600)
                  ) as stream:
            json.dump({'predella_relocation': FORMAT, 'changes': changes}, stream,
                      indent=1)
            stream.write('\n')
    except OSError as e:
        raise Failed(f'the plan could not be written: {e}') from e


def read_plan(path):
    try:
        with open(path, encoding='utf-8') as stream:
            plan = json.load(stream)
        if plan['predella_relocation'] != FORMAT:
            raise ValueError('of another version')
        return [{key: change[key] for key in
                 ('image', 'row', 'old', 'new', 'old_meta', 'new_meta', 'kept')}
                for change in plan['changes']]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Failed(f'{path} is no plan of a relocation: {e!r}') from e


def turned_round(changes):
    return [{'image': one['image'], 'row': one['row'],
             'old': one['new'], 'new': one['old'],
             'old_meta': one['new_meta'], 'new_meta': one['old_meta'],
             'kept': one['kept']}
            for one in changes]


def _row_of(change, when):
    value = change[when]
    return None if value is None else (value, change[f'{when}_meta'])


def apply_plan(database, changes):
    """(changed, already as planned, [changes whose row is another])."""
    # A row that is gone is None, as a plan has it.
    now = {location.row: (location.value, location.meta)
           for image in database.each() for location in image.live()}
    wanted, there, others = [], 0, []
    for one in changes:
        row = now.get(one['row'])
        if row == _row_of(one, 'new'):
            there += 1
            continue
        (wanted if row == _row_of(one, 'old') else others).append(one)
    changed = 0
    for at in range(0, len(wanted), BATCH):
        batch = wanted[at:at + BATCH]
        missed = database.change(batch)
        others += missed
        changed += len(batch) - len(missed)
    return changed, there, others


def _quoted(text):
    if text is None:
        return 'NULL'
    if '\\' in text:
        raise Failed(f'{text}: a backslash means different things to different '
                     'databases; use --apply')
    return "'" + text.replace("'", "''") + "'"


# As glance_db has it.
_KEPT = (' AND EXISTS (SELECT id FROM (SELECT DISTINCT id FROM image_locations '
         'WHERE id = {row} AND value IN ({values}) AND deleted = false) '
         'AS kept)')


def _as_seen(change):
    """The condition that a row is as the plan has it, and the one that is
    kept for it."""
    meta, kept = change['old_meta'], change['kept']
    gone = change['old'] is None
    return (f'WHERE id = {change["row"]} AND '
            f'value = {_quoted(change["new" if gone else "old"])} AND '
            'meta_data ' + ('IS NULL' if meta is None else
                            f'= {_quoted(meta)}') +
            f' AND deleted = {"true" if gone else "false"}' +
            ('' if kept is None else _KEPT.format(
                row=kept['row'], values=', '.join(
                    _quoted(value) for value in kept['values']))) + ';')


def statements(changes):
    """SQL for MySQL, MariaDB, PostgreSQL and SQLite alike."""
    for one in changes:
        if one['new'] is None:
            what = ("deleted = true, status = 'deleted', "
                    'deleted_at = CURRENT_TIMESTAMP')
        elif one['old'] is None:
            what = "deleted = false, status = 'active', deleted_at = NULL"
        else:
            what = (f'value = {_quoted(one["new"])}, '
                    f'meta_data = {_quoted(one["new_meta"])}')
        yield f'UPDATE image_locations SET {what} {_as_seen(one)}'
