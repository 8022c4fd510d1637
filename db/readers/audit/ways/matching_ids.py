"""Find the ids of the generations of a filter, the newest first, by the way that reads the fewest rows.

There are three: by record key, by the runs that can hold such rows, and all rows in the order of ids until enough
match. The rollups say which is cheapest; each statement is written so that no planner takes another way. A cause is in
no rollup: if it is rare, the rows without content are listed by an index, and only these are read.
"""

from dataclasses import replace
from typing import Any

from sqlalchemy import Engine, Row, Select, func, select, union, union_all

from db.readers.audit.filters import ANY_ENDING, Filter, check_text, columns_of, conditions_of
from db.readers.audit.ways.candidates import IdWindow, windows
from db.rollups.marks import unmarked
from db.session import among, rows_of
from db.tables import Generation, OutcomeRollup, StoredRun
from db.words import SUCCEEDED

FEW_KEYS = 10_000
"""Up to this many rows with a beginning of a key are read and sorted; more are filtered in the order of ids."""
WINDOWS_BY_CAUSE = 3
"""A cause is rare if this many windows do not hold enough of it."""
_ALL_ROWS = 10**12


def newest_ids(engine: Engine, wanted: Filter, before: str | None, limit: int) -> list[str]:
    """Return the newest `limit` ids below `before` of a filter that is `resolved`, without its words."""
    if wanted.key is not None:
        of_keys = _of_keys(engine, wanted)
        if of_keys is None:
            return []
        if not wanted.key.endswith(ANY_ENDING) or _are_few(engine, of_keys):
            return _read(engine, _sorted(of_keys, before), limit)
    found: list[str] = []
    for number, window in enumerate(windows(engine, wanted, before, limit)):
        if wanted.cause is not None and number == WINDOWS_BY_CAUSE:
            return found + _read(engine, _of_rare_cause(wanted, window.before), limit - len(found))
        statement = _of_runs(wanted, window, engine.dialect.name) if window.by_run else _in_order(wanted, window)
        found += _read(engine, statement, limit - len(found))
        if len(found) >= limit:
            break
    return found


def ids_of_record(engine: Engine, key: str, wanted: Filter | None = None) -> list[str]:
    """Return all generations of a filter with exactly this record key, the oldest first, also the replaced ones.

    A `*` at the end of the key is a part of it.
    """
    check_text("key", key)
    g, every = Generation, replace(wanted or Filter(), replaced=True)
    parts = [
        select(g.id).where(
            *(g.flow == place.flow, g.step == place.step, g.endpoint == place.endpoint, g.record_key == key),
            *conditions_of(every),
        )
        for place in _places(engine, every)
    ]
    return sorted(row.id for part in parts for row in rows_of(engine, part))


def _read(engine: Engine, statement: Select[Any], limit: int) -> list[str]:
    return [row.id for row in rows_of(engine, statement.limit(limit))]


def _of_runs(wanted: Filter, window: IdWindow, dialect: str) -> Select[Any]:
    """Select what matches among all rows of the window's runs."""
    g = Generation
    inside = (among(g.run_id, window.run_ids, dialect), g.id >= window.first, g.id < window.before)
    return _sorted(select(g.id).where(*inside, *conditions_of(wanted)))


def _in_order(wanted: Filter, window: IdWindow) -> Select[Any]:
    """Select what matches among the window's rows, read in the order of ids until enough match."""
    g = Generation
    # Only the columns of the conditions: one that stands after a long text makes SQLite read that too.
    rows = select(g.id, *columns_of(wanted)).where(g.id >= window.first, g.id < window.before).order_by(g.id.desc())
    # A limit, though no ledger reaches it, keeps the conditions outside, so that the rows are read by the primary key.
    each = rows.limit(_ALL_ROWS).subquery("each").c
    return select(each.id).where(*conditions_of(wanted, each)).order_by(each.id.desc())


def _of_rare_cause(wanted: Filter, before: str) -> Select[Any]:
    """Select what matches below an id among all that lack content."""
    g = Generation
    # Only columns of the index of records' histories, so that no row is read for this.
    of_place = ((g.flow, wanted.flow), (g.step, wanted.step), (g.endpoint, wanted.endpoint))
    chosen = [column == value for column, value in of_place if value is not None]
    lacking = select(g.id).where(g.status != SUCCEEDED, *chosen).cte("lacking").prefix_with("MATERIALIZED")
    found = select(g.id).join(lacking, lacking.c.id == g.id).where(*conditions_of(wanted), lacking.c.id < before)
    return found.order_by(lacking.c.id.desc())


def _sorted(statement: Select[Any], before: str | None = None) -> Select[Any]:
    """Sort all ids of a statement, the newest first, those below `before`."""
    # Materialized, so that no planner reads all generations in the order of ids instead.
    found = statement.cte("found").prefix_with("MATERIALIZED")
    newest = select(found.c.id).order_by(found.c.id.desc())
    return newest if before is None else newest.where(found.c.id < before)


def _of_keys(engine: Engine, wanted: Filter) -> Select[Any] | None:
    """Select what matches by record key, through the index of records' histories; None without any step."""
    g = Generation
    # No condition on ids: PostgreSQL would take the primary key for it, and read most of the generations.
    which = conditions_of(replace(wanted, until=None))
    if wanted.until is not None:
        which.append(g.created_at < wanted.until)
    parts = [
        select(g.id).where(g.flow == flow, g.step == step, g.endpoint == endpoint, *which)
        for flow, step, endpoint in _places(engine, wanted)
    ]
    return select(union_all(*parts).subquery("of_keys")) if parts else None


def _are_few(engine: Engine, of_keys: Select[Any]) -> bool:
    first = of_keys.limit(FEW_KEYS + 1).subquery()
    return bool(rows_of(engine, select(func.count()).select_from(first))[0][0] <= FEW_KEYS)


def _places(engine: Engine, wanted: Filter) -> list[Row[Any]]:
    """List the flows, steps and endpoints that have generations; the index of records' histories begins with them."""
    others = [row.id for row in rows_of(engine, unmarked())]
    # Two statements: as one, a planner may read the steps of all generations.
    of_others = select(Generation.run_id, Generation.step).where(Generation.run_id.in_(others))
    steps = union(select(OutcomeRollup.run_id, OutcomeRollup.step), of_others).subquery()
    r = StoredRun
    pairs = (
        (r.flow, wanted.flow),
        (steps.c.step, wanted.step),
        (r.endpoint, wanted.endpoint),
        (r.trigger, wanted.trigger),
    )
    which = [column == value for column, value in pairs if value is not None]
    place = select(StoredRun.flow, steps.c.step, StoredRun.endpoint).join(steps, steps.c.run_id == StoredRun.id)
    return rows_of(engine, place.where(*which).distinct())
