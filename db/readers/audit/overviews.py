"""The overview of a period: what it cost and how it ended, what failed last, and what is current now."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Engine, and_, case, func, literal, select, true

from db.readers.audit.filters import Filter, conditions_of, resolved
from db.readers.audit.sums import (
    Alike,
    OutcomeSum,
    UsageSum,
    chosen_runs,
    conditions_on,
    outcomes_by_each,
    sums_by_each,
    values_of,
)
from db.readers.figures import TotalUsage
from db.rollups.marks import unmarked
from db.session import rows_of
from db.tables import Generation, OutcomeRollup, RolledUp, StandingContent, StoredRun
from db.tables.tried_rows import is_of_trial
from db.words import CACHED, SUCCEEDED

COUNTED_AT_MOST = 1_000_000
"""The most records of which the content is counted, in a third of a second: a page must not wait for more."""
_NO_USAGE = TotalUsage()
_SIZES: WeakKeyDictionary[Engine, dict[tuple[str | None, str | None], int]] = WeakKeyDictionary()
"""How many records were counted last, by ledger, flow and endpoint."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How records ended. `succeeded` were requested, `cached` and `unchanged` have their content from the ledger.

    `without_content` have a generation that did not succeed; `failed_again` have none, because they failed as before.
    """

    succeeded: int = 0
    cached: int = 0
    unchanged: int = 0
    without_content: int = 0
    failed_again: int = 0

    @property
    def generations(self) -> int:
        """The number of generations that count in their runs; unchanged records have none."""
        return self.succeeded + self.cached + self.without_content

    @property
    def records(self) -> int:
        """The number of all records that were worked on, each once in each run and step."""
        return self.generations + self.unchanged + self.failed_again

    @property
    def failed(self) -> int:
        """The number of all records that ended without content."""
        return self.without_content + self.failed_again


@dataclass(frozen=True, slots=True)
class FigureLine:
    """The figures of what is alike: usage and cost of the attempts, and how records ended.

    A line by model adds the attempts that this model answered to the outcomes for which it was requested.
    """

    alike: Alike
    usage: TotalUsage
    ended: Ended


@dataclass(frozen=True, slots=True)
class RecentFailure:
    """A generation without content, and why; `message` may contain text of the endpoint or of a record."""

    generation_id: str
    run_id: str
    flow: str
    step: str
    endpoint: str
    record_key: str
    status: str
    error_kind: str | None
    message: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ContentCount:
    """The records of a step: with current content, and of these the `confirmed` ones; and the failing ones.

    `confirmed` were found unchanged by a later run. `failing` failed since their content was written, or never had any
    (`without`).
    """

    flow: str
    step: str
    endpoint: str
    records: int
    current: int
    confirmed: int
    failing: int
    without: int


def figures_by_each(
    engine: Engine, groupings: Sequence[Sequence[str]], chosen: Filter | None = None
) -> list[list[FigureLine]]:
    """Return the figures of a period in several groupings: by day, flow, endpoint, run, step, template, model, or none.

    Each list is in the order of what it is grouped by, and has one line if that is nothing. Two statements read all, so
    open runs are added up once. A period counts as whole UTC days. Raises FilterError.
    """
    used = sums_by_each(engine, groupings, chosen)
    outcomes = outcomes_by_each(engine, [[*by, "status", "origin"] for by in groupings], chosen)
    return [_lines(by, usage, _ended(by, ended)) for by, usage, ended in zip(groupings, used, outcomes, strict=True)]


def recent_failures(engine: Engine, chosen: Filter | None = None, limit: int = 10) -> list[RecentFailure]:
    """Return the newest generations without content of the newest runs that have any, newest first.

    Those of trials are left out unless the filter asks for them, because no record lacks content for their sake.
    Raises FilterError for a filter by which figures are not kept.
    """
    wanted, g = resolved(engine, chosen or Filter()), Generation
    runs = _runs_with_failures(engine, wanted, limit)
    if not runs:
        return []
    columns = (g.id, g.run_id, g.flow, g.step, g.endpoint, g.record_key, g.status, g.error_kind)
    found = (
        select(*columns, g.error_message, g.created_at)
        .where(g.run_id.in_(runs), g.status != SUCCEEDED, g.replaced_by == "", *conditions_of(wanted))
        .where(*_but_trials(wanted, g.run_id))
        .order_by(g.id.desc())
    )
    return [RecentFailure(*row) for row in rows_of(engine, found.limit(limit))]


def count_content(engine: Engine, flow: str | None = None, endpoint: str | None = None) -> list[ContentCount] | None:
    """Count the records of each step by their current content; None if they are more than COUNTED_AT_MOST."""
    c = StandingContent
    chosen = [column == value for column, value in ((c.flow, flow), (c.endpoint, endpoint)) if value is not None]
    sizes = _SIZES.setdefault(engine, {})
    # Looking how many there are takes half as long as counting them, so a small table is only looked at once.
    if sizes.get((flow, endpoint), COUNTED_AT_MOST) > COUNTED_AT_MOST // 2:
        some = select(literal(1)).select_from(c).where(*chosen).limit(COUNTED_AT_MOST + 1).subquery()
        if rows_of(engine, select(func.count()).select_from(some))[0][0] > COUNTED_AT_MOST:
            return None
    key = (c.flow, c.step, c.endpoint)
    counts = (
        func.count().label("records"),
        func.count(c.generation_id),
        func.count(case((c.confirmed > 0, c.generation_id))),
        func.count(c.failing_id),
        func.count(case((c.generation_id.is_(None), c.failing_id))),
    )
    found = select(*key, *counts).where(*chosen).group_by(*key).order_by(*key)
    counted = [ContentCount(*row) for row in rows_of(engine, found)]
    if counted:
        sizes[flow, endpoint] = sum(each.records for each in counted)
    return counted


def _ended(by: Sequence[str], sums: Sequence[OutcomeSum]) -> dict[Alike, Ended]:
    values = values_of(by)
    found: defaultdict[object, Counter[str]] = defaultdict(Counter)
    alike: dict[object, Alike] = {}
    for each in sums:
        again = "unchanged" if each.has_content else "failed_again"
        new = (CACHED if each.is_reused else SUCCEEDED) if each.has_content else "without_content"
        key = values(each.alike)
        alike.setdefault(key, each.alike)
        found[key][new] += each.generations
        found[key][again] += each.unchanged
    return {replace(alike[key], status=None, origin=None): Ended(**counts) for key, counts in found.items()}


def _lines(by: Sequence[str], used: Sequence[UsageSum], ended: dict[Alike, Ended]) -> list[FigureLine]:
    usage = {each.alike: each for each in used}
    lines = [_line(alike, usage.get(alike), ended.get(alike, Ended())) for alike in usage.keys() | ended.keys()]
    values: Any = values_of(by)
    return sorted(lines, key=lambda line: values(line.alike))


def _line(alike: Alike, usage: UsageSum | None, ended: Ended) -> FigureLine:
    if usage is None:
        return FigureLine(alike, replace(_NO_USAGE, cost_usd=Decimal(0)), ended)
    return FigureLine(alike, usage.usage, ended)


def _runs_with_failures(engine: Engine, chosen: Filter, limit: int) -> list[str]:
    """Return the newest closed runs that have, together, this many generations without content; and all open runs.

    The days at the ends of the period are in it only in part, so what a run has on them may not count.
    """
    alike = chosen_runs("outcomes", chosen)
    o = OutcomeRollup.__table__
    counts = func.sum(case((_is_whole(o.c.day, chosen), o.c.generations), else_=0)).label("failed")
    found = (
        select(o.c.run_id, counts)
        .join(RolledUp, RolledUp.run_id == o.c.run_id)
        .join(StoredRun, StoredRun.id == o.c.run_id)
        .where(o.c.status != SUCCEEDED, o.c.generations > 0, *conditions_on(o, chosen))
        .where(*(getattr(StoredRun, name) == value for name, value in alike.items() if value is not None))
        .where(*_but_trials(chosen, StoredRun.id))
        .group_by(o.c.run_id)
        .order_by(o.c.run_id.desc())
    )
    if chosen.since is None and chosen.until is None:
        found = found.limit(limit)
    runs = [row.id for row in rows_of(engine, unmarked(**alike))]
    for row in rows_of(engine, found):
        runs.append(row.run_id)
        limit -= int(row.failed)
        if limit <= 0:
            break
    return runs


def _but_trials(chosen: Filter, run_id: Any) -> list[ColumnElement[bool]]:
    return [] if chosen.trigger is not None else [~is_of_trial(run_id)]


def _is_whole(day: Any, chosen: Filter) -> ColumnElement[bool]:
    """Whether a day is not the first or the last one of a period."""
    found: list[ColumnElement[bool]] = []
    if chosen.since is not None:
        found.append(day > f"{chosen.since.astimezone(UTC):%Y-%m-%d}")
    if chosen.until is not None:
        found.append(day < f"{chosen.until.astimezone(UTC):%Y-%m-%d}")
    return and_(true(), *found)
