"""Find the parts of the ledger that can hold the generations of a filter, so that no list reads all of them.

The rollups say how many generations of a kind each closed run has. So a list is read in windows of ids, the newest
first, and each window knows its runs. A run without a mark in `rolled_up` can hold anything and is in all windows that
it overlaps. A rare origin or an old template needs no index of its own this way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Engine, and_, case, func, select, true

from db.readers.audit.filters import WITHOUT_CONTENT, Filter, id_of
from db.readers.audit.sums import conditions_on
from db.session import rows_of
from db.tables import Generation, OutcomeRollup, RolledUp, StoredRun

CLOCK_SLACK = timedelta(minutes=10)
"""The clocks of a run's machines may differ by this much, see db/clock.py."""
_BY_RUN = 1.5
"""Reading a row through its run costs this much more than reading the next row by id."""
LAST = "g"
"""After all ids, which are hexadecimal."""


@dataclass(frozen=True, slots=True)
class CandidateRun:
    """A run that can hold generations of a filter, between two ids; `last` is None while it is open.

    `matching` is the number of its generations of this kind, None if nobody knows, and `rows` that of all.
    """

    id: str
    first: str
    last: str | None
    matching: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class IdWindow:
    """A part of the ledger: the ids from `first` up to, and not with, `before`. All matching rows are of `run_ids`.

    `by_run` says whether it is cheaper to read all rows of these runs than all rows in the order of ids.
    """

    first: str
    before: str
    run_ids: tuple[str, ...]
    by_run: bool


def windows(engine: Engine, wanted: Filter, before: str | None, needed: int) -> Iterator[IdWindow]:
    """Yield the windows that can hold the generations of a filter, the newest first; each should hold `needed`.

    A filter on keys makes them hold less, so each following window is larger.
    """
    high = before or LAST
    runs = [run for run in _runs(engine, wanted) if run.first < high]
    waiting = [run for run in runs if run.matching is None or run.matching > 0]
    while waiting:
        taken = _newest(waiting, needed)
        del waiting[: len(taken)]
        low = taken[-1].first
        members = taken + [run for run in waiting if run.last is None or run.last >= low]
        # What is newer than all members is of other runs.
        high = min(high, max(run.last or LAST for run in members))
        by_run = sum(run.rows for run in members) * _BY_RUN < _rows_in_order(runs, taken, low, high, needed)
        yield IdWindow(low, high, tuple(run.id for run in members), by_run)
        high, needed = low, needed * 2


def _newest(waiting: Sequence[CandidateRun], needed: int) -> list[CandidateRun]:
    """Return the newest runs that together hold `needed` rows, or all; runs of an unknown number don't count."""
    found = 0
    for number, run in enumerate(waiting, start=1):
        found += run.matching or 0
        if found >= needed:
            return list(waiting[:number])
    return list(waiting)


def _rows_in_order(
    runs: Sequence[CandidateRun], taken: Sequence[CandidateRun], low: str, high: str, needed: int
) -> float:
    """Estimate how many rows are read in the order of ids until enough match: a part of those of the oldest run."""
    *newer, oldest = taken
    between = [run for run in runs if run.first < high and (run.last is None or run.last >= low)]
    missing = needed - sum(run.matching or 0 for run in newer)
    part = min(missing / oldest.matching, 1) if oldest.matching else 1
    return sum(run.rows for run in between if run is not oldest) + oldest.rows * part


def _runs(engine: Engine, wanted: Filter) -> list[CandidateRun]:
    """List all runs up to the end of the period, the newest first."""
    found = [*_closed(engine, wanted), *_not_added_up(engine, wanted)]
    return sorted(found, key=lambda run: run.first, reverse=True)


def _closed(engine: Engine, wanted: Filter) -> Iterator[CandidateRun]:
    o = OutcomeRollup
    rows = o.generations + o.replaced
    conditions = and_(true(), *conditions_on(o.__table__, _as_kept(wanted)), *_of_run(wanted))
    matching = func.sum(case((conditions, rows if wanted.replaced else o.generations), else_=0))
    statement = (
        select(StoredRun.id, StoredRun.started_at, StoredRun.ended_at, matching, func.sum(rows))
        .join(RolledUp, RolledUp.run_id == StoredRun.id)
        .join(o, o.run_id == StoredRun.id)
        .group_by(StoredRun.id)
    )
    for run_id, started_at, ended_at, count, number in rows_of(engine, statement):
        yield _candidate(run_id, started_at, ended_at, int(count), int(number))


def _as_kept(wanted: Filter) -> Filter:
    """Return the nearest filter that the rollups know: they have no causes, so all without content may match one."""
    if wanted.cause is None:
        return wanted
    return replace(wanted, cause=None, status=wanted.status or WITHOUT_CONTENT)


def _not_added_up(engine: Engine, wanted: Filter) -> Iterator[CandidateRun]:
    """Yield the runs that count by live sums; for those of other flows or endpoints, only how many rows they have."""
    is_open = StoredRun.id.not_in(select(RolledUp.run_id))
    rows = select(func.count()).where(Generation.run_id == StoredRun.id).scalar_subquery()
    may_match = and_(true(), *_of_run(wanted))
    statement = select(StoredRun.id, StoredRun.started_at, may_match, rows).where(is_open)
    for run_id, started_at, can, count in rows_of(engine, statement):
        yield _candidate(run_id, started_at, None, None if can and count else 0, int(count))


def _candidate(
    run_id: str, started_at: datetime, ended_at: datetime | None, matching: int | None, rows: int
) -> CandidateRun:
    last = None if ended_at is None else id_of(ended_at + CLOCK_SLACK)
    return CandidateRun(run_id, id_of(started_at - CLOCK_SLACK), last, matching, rows)


def _of_run(wanted: Filter) -> list[ColumnElement[bool]]:
    r = StoredRun
    pairs = ((r.flow, wanted.flow), (r.endpoint, wanted.endpoint), (r.id, wanted.run), (r.trigger, wanted.trigger))
    found = [column == value for column, value in pairs if value is not None]
    if wanted.until is not None:
        found.append(StoredRun.started_at < wanted.until + CLOCK_SLACK)
    return found
