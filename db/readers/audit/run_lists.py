"""List runs that match a filter, sorted by their start, cost, failures or duration, in pages.

The figures of closed runs come from the rollups, those of all others from live sums. A shard of an earlier release has
no line and counts in the figures of its run.
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    Row,
    Select,
    and_,
    cast,
    extract,
    func,
    or_,
    select,
    union_all,
)

from db.readers.audit.filters import FilterError, RunFilter, check_names, check_text
from db.readers.figures import RunLine
from db.readers.run_figures import RunFigures, figures_of
from db.readers.runs import running, state_of
from db.rollups.attempt_sums import COST, total
from db.rollups.marks import unmarked
from db.session import rows_of
from db.tables import Attempt, Generation, OutcomeRollup, RolledUp, StoredRun, StoredStep, UsageRollup
from db.words import CRASHED, RUNNING, SUCCEEDED, TRY

RUNS_A_PAGE = 50
COUNTED_UP_TO = 10_000
"""More runs than this are not counted."""
_END = re.compile(r"(-?[0-9]{1,18}):(.+)", re.ASCII)
_ID = re.compile(r"[0-9a-f-]{36}", re.ASCII)
RunSort = Literal["started", "cost", "failures", "duration"]
RUN_SORTS: tuple[RunSort, ...] = get_args(RunSort)


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of a list of runs; `before` is where the next page begins, None if there is none.

    `count` is the number of all runs of the filter, None if there are more than COUNTED_UP_TO. `leaves_out_trials`
    says that trials match too, see RunFilter.
    """

    lines: list[RunLine]
    before: str | None
    count: int | None
    leaves_out_trials: bool = False


def list_runs_page(
    engine: Engine,
    wanted: RunFilter,
    sort: RunSort = "started",
    before: str | None = None,
    limit: int = RUNS_A_PAGE,
) -> RunPage:
    """List the runs of a filter, the greatest first; those with equal values by their start, the newest first.

    An open run has no duration yet and follows those that have ended. Raises FilterError for an unknown `sort`, or a
    `before` that is no end of a page, or a flow or endpoint that no run had.
    """
    if sort not in RUN_SORTS:
        raise FilterError(f"Runs can't be sorted by {sort!r}. Available: {', '.join(RUN_SORTS)}.")
    check_text("before", before)
    check_names(engine, wanted)
    active = running(engine)
    matching = _matching(wanted, active)
    ranked = matching if sort == "started" else _with_value(matching, sort, engine.dialect.name)
    rows = rows_of(engine, _page(ranked, sort, before).limit(limit + 1))
    figures = figures_of(engine, [row.id for row in rows[:limit]])
    lines = [_line(row, active, figures[row.id]) for row in rows[:limit]]
    end = _end_of(rows[limit - 1], sort) if len(rows) > limit else None
    trials = [] if wanted.trigger else rows_of(engine, _matching(replace(wanted, trigger=TRY), active).limit(1))
    return RunPage(lines, end, _count(engine, matching), bool(trials))


_COLUMNS = select(*(StoredRun.__table__.c[each.name] for each in fields(RunLine) if each.name in StoredRun.__table__.c))
"""Selects the columns of runs that a line has fields for; their status is the stored one."""


def _line(row: Row[Any], active: frozenset[str], figures: RunFigures) -> RunLine:
    columns = {name: value for name, value in row._asdict().items() if name != "value"}
    return RunLine(
        **columns | {"status": state_of(row.id, row.status, active)},
        generations=figures.generations,
        succeeded=figures.succeeded,
        cached=figures.cached,
        usage=figures.usage,
    )


def _matching(wanted: RunFilter, active: frozenset[str]) -> Select[Any]:
    return _COLUMNS.where(StoredRun.parent_run_id.is_(None), *_conditions(wanted, active))


def _conditions(wanted: RunFilter, active: frozenset[str]) -> list[ColumnElement[bool]]:
    r = StoredRun
    pairs = ((r.flow, wanted.flow), (r.trigger, wanted.trigger), (r.endpoint, wanted.endpoint))
    found = [column == value for column, value in pairs if value is not None]
    if wanted.trigger is None:
        found.append(r.trigger != TRY)
    if wanted.since is not None:
        found.append(r.started_at >= wanted.since)
    if wanted.until is not None:
        found.append(r.started_at < wanted.until)
    if wanted.status is not None:
        found.append(_is_in_state(wanted.status, active))
    return found


def _is_in_state(state: str, active: frozenset[str]) -> ColumnElement[bool]:
    """Select runs by their state, as `state_of` says it."""
    is_active = StoredRun.id.in_(sorted(active))
    if state == RUNNING:
        return is_active
    stored = (state, RUNNING) if state == CRASHED else (state,)
    return and_(StoredRun.status.in_(stored), ~is_active)


def _with_value(matching: Select[Any], sort: RunSort, dialect: str) -> Select[Any]:
    """Add the value by which runs are sorted, as a whole number: it is exact, so pages neither skip nor repeat runs."""
    if sort == "duration":
        return matching.add_columns(func.coalesce(_milliseconds(dialect), -1).label("value"))
    values = (_costs() if sort == "cost" else _failures()).subquery("sorted_by")
    return matching.add_columns(func.coalesce(values.c.value, 0).label("value")).outerjoin(
        values, values.c.run_id == StoredRun.id
    )


def _milliseconds(dialect: str) -> ColumnElement[int]:
    if dialect == "postgresql":
        took: Any = extract("epoch", StoredRun.ended_at - StoredRun.started_at) * 1000
    else:
        took = (func.julianday(StoredRun.ended_at) - func.julianday(StoredRun.started_at)) * 86_400_000
    return cast(func.round(took), BigInteger)


def _costs() -> Select[Any]:
    u, a = UsageRollup, Attempt
    # Not db/rollups/counted.py: it groups the requests of open runs by what a sort does not need.
    stored = select(u.run_id, u.cost_e10.label("value")).join(RolledUp, RolledUp.run_id == u.run_id)
    live = select(a.run_id, total(COST)).where(a.run_id.in_(unmarked())).group_by(a.run_id)
    every = union_all(stored, live).subquery().c
    # A shard's requests are its run's.
    its_run = func.coalesce(StoredRun.parent_run_id, StoredRun.id)
    added = select(its_run.label("run_id"), cast(func.sum(every.value), BigInteger).label("value"))
    return added.join(StoredRun, StoredRun.id == every.run_id).group_by(its_run)


def _failures() -> Select[Any]:
    o, g, s = OutcomeRollup, Generation, StoredStep
    failed = (g.status != SUCCEEDED, g.replaced_by == "")
    stored = select(o.run_id, o.generations.label("value")).join(RolledUp, RolledUp.run_id == o.run_id)
    live = select(g.run_id, func.count()).where(g.run_id.in_(unmarked()), *failed).group_by(g.run_id)
    again = select(s.run_id, s.failed_again + s.skipped_again)
    every = union_all(stored.where(o.status != SUCCEEDED), live, again).subquery().c
    return select(every.run_id, cast(func.sum(every.value), BigInteger).label("value")).group_by(every.run_id)


def _page(ranked: Select[Any], sort: RunSort, before: str | None) -> Select[Any]:
    if sort == "started":
        following = ranked if before is None else ranked.where(StoredRun.id < _read_id(before))
        return following.order_by(StoredRun.id.desc())
    every = ranked.subquery("ranked")
    page = select(every).order_by(every.c.value.desc(), every.c.id.desc())
    if before is None:
        return page
    value, run_id = _read_end(before)
    return page.where(or_(every.c.value < value, and_(every.c.value == value, every.c.id < run_id)))


def _end_of(row: Row[Any], sort: RunSort) -> str:
    return str(row.id) if sort == "started" else f"{row.value}:{row.id}"


def _read_id(before: str) -> str:
    if _ID.fullmatch(before) is None:
        raise _no_end(before)
    return before


def _read_end(before: str) -> tuple[int, str]:
    found = _END.fullmatch(before)
    if found is None:
        raise _no_end(before)
    return int(found[1]), found[2]


def _no_end(before: str) -> FilterError:
    return FilterError(f"{before!r} is not the end of a page of this list. Begin with its first page.")


def _count(engine: Engine, matching: Select[Any]) -> int | None:
    some = matching.with_only_columns(StoredRun.id).limit(COUNTED_UP_TO + 1).subquery()
    count = int(rows_of(engine, select(func.count()).select_from(some))[0][0])
    return None if count > COUNTED_UP_TO else count
