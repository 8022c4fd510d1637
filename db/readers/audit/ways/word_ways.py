"""Go through the answers in which words may be, the newest first: by the index, by a filter, or by reading all.

Each way yields steps, so that a search can stop between two of them and say how far it has come.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from sqlalchemy import Engine, Select, and_, func, or_, select

from db.readers.audit.filters import ID_SLACK, Filter, columns_of, conditions_of, id_of
from db.readers.audit.ways.candidates import CLOCK_SLACK, LAST
from db.readers.audit.ways.matching_ids import newest_ids
from db.search.answer_index import AnswerIndex
from db.search.tokens import WordQuery
from db.session import among, rows_of
from db.tables import Generation, StoredRun
from db.words import BATCH, CACHE, LIVE

END = ""
"""Below all ids."""
FEW_RUNS = 100
"""If more runs are not indexed, all answers are read."""
SMALL_RUN = 10_000
LISTED_AT_ONCE = 20_000
"""Up to this many generations of small runs are listed at once; more are looked for in the order of ids, in steps."""
_FIRST, _MOST = 100, 4_000
_READ_AT_ONCE = 500
_LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class SearchStep:
    """Generations in which the words may be, and down to which id there are no others."""

    ids: list[str]
    down_to: str


def ways_to(
    engine: Engine, index: AnswerIndex | None, query: WordQuery, wanted: Filter, before: str | None
) -> list[Iterator[SearchStep]]:
    """Return the ways that together go through all answers of a filter, from the id `before` on."""
    if wanted.until is not None:
        before = min(before or LAST, id_of(wanted.until + ID_SLACK))
    if index is None or wanted.key is not None:
        # A record has few generations.
        return [_read_all(engine, wanted, before)]
    unindexed = [run.run_id for run in index.unindexed()]
    if len(unindexed) > FEW_RUNS:
        return [_read_all(engine, wanted, before)]
    if wanted.run is not None:
        unindexed = [wanted.run] if wanted.run in unindexed else []
    small = _small_runs(engine, unindexed)
    by_index = _indexed(engine, index, query, wanted, before)
    # What matches a filter may be rare or old, and a word common; or the other way round.
    first = _sooner(by_index, _read_all(engine, wanted, before)) if columns_of(wanted) else by_index
    apart = [_read_all(engine, replace(wanted, run=run_id), before) for run_id in unindexed if run_id not in small]
    if not small:
        return [first, *apart]
    all_of = _all_of if sum(small.values()) <= LISTED_AT_ONCE else _look_for_all_of
    return [first, *apart, all_of(engine, wanted, list(small), before)]


def _sooner(one: Iterator[SearchStep], other: Iterator[SearchStep]) -> Iterator[SearchStep]:
    """Follow two ways through the same answers in turns, and get as far as the quicker one."""
    down_to = LAST
    # A step by the index costs less.
    for way in cycle((one, one, one, other)):
        step = next(way, SearchStep([], END))
        down_to = min(down_to, step.down_to)
        yield SearchStep(step.ids, down_to)
        if down_to == END:
            return


def _indexed(
    engine: Engine, index: AnswerIndex, query: WordQuery, wanted: Filter, before: str | None
) -> Iterator[SearchStep]:
    """Go through the hits of the index."""
    since = None if wanted.since is None else _first_since(engine, wanted)
    size = _FIRST
    while True:
        ids = index.newest(query, before, since, size)
        is_last = len(ids) < size
        yield SearchStep(_matching(engine, wanted, ids), END if is_last else ids[-1])
        if is_last:
            return
        before, size = ids[-1], min(size * 4, _MOST)


def _read_all(engine: Engine, wanted: Filter, before: str | None) -> Iterator[SearchStep]:
    """Go through all generations of a filter that can have texts."""
    # Without any condition, the rows are read in their order.
    return _read_own(engine, wanted, before) if columns_of(wanted) else _read(engine, wanted, before)


def _read_own(engine: Engine, wanted: Filter, before: str | None) -> Iterator[SearchStep]:
    """Go through the generations of a filter, without those that only reused an answer: they have no texts."""
    if wanted.origin is not None:
        yield from _read(engine, wanted, before)
        return
    ways = {origin: _read(engine, replace(wanted, origin=origin), before) for origin in (LIVE, BATCH)}
    down_to = dict.fromkeys(ways, LAST)
    while max(down_to.values()) != END:
        origin = max(down_to, key=lambda each: down_to[each])
        step = next(ways[origin], SearchStep([], END))
        down_to[origin] = step.down_to
        yield SearchStep(step.ids, max(down_to.values()))


def _read(engine: Engine, wanted: Filter, before: str | None) -> Iterator[SearchStep]:
    """Go through all generations of a filter."""
    if wanted.origin == CACHE:
        return
    size = _READ_AT_ONCE
    while True:
        ids = newest_ids(engine, wanted, before, size)
        is_last = len(ids) < size
        yield SearchStep(ids, END if is_last else ids[-1])
        if is_last:
            return
        before, size = ids[-1], min(size * 4, _MOST)


def _all_of(engine: Engine, wanted: Filter, run_ids: Sequence[str], before: str | None) -> Iterator[SearchStep]:
    """Go through the generations of small runs."""
    in_runs = Generation.run_id.in_(run_ids)
    below = Generation.id < (before or LAST)
    rows = select(Generation.id).where(in_runs, below, *conditions_of(wanted))
    ids = sorted((row.id for row in rows_of(engine, rows)), reverse=True)
    for start in range(0, len(ids), _READ_AT_ONCE):
        part = ids[start : start + _READ_AT_ONCE]
        yield SearchStep(part, part[-1])


def _look_for_all_of(
    engine: Engine, wanted: Filter, run_ids: Sequence[str], before: str | None
) -> Iterator[SearchStep]:
    """Go through the generations of many small runs in the order of ids, past those of other runs."""
    g = Generation
    columns = dict.fromkeys((g.id, g.run_id, *columns_of(wanted)))
    began = select(func.min(StoredRun.started_at)).where(StoredRun.id.in_(run_ids))
    first = id_of(rows_of(engine, began)[0][0] - CLOCK_SLACK)
    while True:
        below = select(*columns).where(g.id >= first, g.id < (before or LAST)).order_by(g.id.desc())
        each = below.limit(_LOOKED_AT).subquery("each").c
        is_hit = and_(each.run_id.in_(run_ids), *conditions_of(wanted, each))
        rows = rows_of(engine, select(each.id, is_hit.label("is_hit")).order_by(each.id.desc()))
        is_last = len(rows) < _LOOKED_AT
        yield SearchStep([row.id for row in rows if row.is_hit], END if is_last else rows[-1].id)
        if is_last:
            return
        before = rows[-1].id


def _small_runs(engine: Engine, run_ids: Sequence[str]) -> dict[str, int]:
    """Count the generations of the runs that have few."""
    counts = {run_id: int(rows_of(engine, _count_at_most(run_id))[0][0]) for run_id in run_ids}
    return {run_id: count for run_id, count in counts.items() if count <= SMALL_RUN}


def _count_at_most(run_id: str) -> Select[tuple[int]]:
    some = select(Generation.step).where(Generation.run_id == run_id).limit(SMALL_RUN + 1).subquery()
    return select(func.count()).select_from(some)


def _matching(engine: Engine, wanted: Filter, ids: Sequence[str]) -> list[str]:
    """Return those of the generations that match a filter, in the order of the ids."""
    if not columns_of(wanted) and wanted.replaced:
        return list(ids)
    of_ids = among(Generation.id, ids, engine.dialect.name)
    # OFFSET 0 keeps the conditions outside, so that the rows are found by their ids.
    each = select(Generation.id, *columns_of(wanted)).where(of_ids).offset(0).subquery("each").c
    found = {row.id for row in rows_of(engine, select(each.id).where(*conditions_of(wanted, each)))}
    return [generation_id for generation_id in ids if generation_id in found]


def _first_since(engine: Engine, wanted: Filter) -> str:
    """Return an id below all generations of a filter's period: those of the runs that reach into it."""
    assert wanted.since is not None
    reaches = or_(StoredRun.ended_at.is_(None), StoredRun.ended_at >= wanted.since - CLOCK_SLACK)
    first = rows_of(engine, select(func.min(StoredRun.started_at)).where(reaches))[0][0]
    return id_of((first or wanted.since) - CLOCK_SLACK)
