"""Read a record's life: which content stood for it from when to when, and the failures in between.

A ledger of an earlier release has a row for each run that found a record unchanged. Consecutive rows that say the same
are one period here, and each of them is a confirmation, as those are that later releases only count.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Engine, and_, case, func, null, or_, select

from db.ledger.tables import Generation, StandingContent
from db.sameness import what_it_says
from db.session import rows_of
from db.words import SUCCEEDED, Status


@dataclass(frozen=True, slots=True)
class LifePeriod:
    """How long one outcome of a record in a step held: a content that stood, or a failure.

    `until` is None where it still holds. A failure ends no content: what stood before it stands on. `generation_id` is
    the first that said so, in `run_id`; `written_by` is the one that has the content's text. It was `confirmed` so
    often, last at `confirmed_at`.
    """

    flow: str
    step: str
    endpoint: str
    status: Status
    since: datetime
    until: datetime | None
    record_hash: str | None
    template_hash: str
    generation_id: str
    run_id: str
    written_by: str | None
    error_kind: str | None
    error_message: str | None
    confirmed: int
    confirmed_at: datetime | None


def read_life(engine: Engine, name: str, key: str, endpoint: str | None = None) -> list[LifePeriod]:
    """Return the periods of a record's life, by its key: in all steps of a flow, or in a step, by its name.

    They are in the order in which they began, those of each flow, step and endpoint together.
    """
    g, c = Generation, StandingContent
    of_record = and_(*(g.__table__.c[column.name] == column for column in c.__table__.primary_key))
    confirmed = _what_stands_or(c.confirmed, c.failing, func.coalesce(g.confirmed, 0))
    statement = (
        select(
            g.flow,
            g.step,
            g.endpoint,
            g.status,
            g.created_at.label("since"),
            null().label("until"),
            g.record_hash,
            g.template_hash,
            g.id.label("generation_id"),
            g.run_id,
            case((g.status == SUCCEEDED, func.coalesce(g.source_generation_id, g.id))).label("written_by"),
            g.error_kind,
            g.error_message,
            confirmed.label("confirmed"),
            case((confirmed > 0, _what_stands_or(c.confirmed_at, c.failing_at, g.confirmed_at))).label("confirmed_at"),
        )
        .join(c, of_record)
        .where(c.record_key == key, or_(c.flow == name, c.step == name))
        .order_by(g.flow, g.step, g.endpoint, g.id)
    )
    if endpoint is not None:
        statement = statement.where(c.endpoint == endpoint)
    found: list[LifePeriod] = []
    for _place, rows in groupby(rows_of(engine, statement), key=lambda row: (row.flow, row.step, row.endpoint)):
        found += _periods(LifePeriod(**row._asdict()) for row in rows)
    return found


def _what_stands_or(content: Any, failure: Any, own: Any) -> Any:
    """Select one of these for a row of history: what still stands is confirmed in its row of content."""
    stands, fails = Generation.id == StandingContent.generation_id, Generation.id == StandingContent.failing_id
    return case((stands, content), (fails, failure), else_=own)


def _periods(rows: Iterable[LifePeriod]) -> list[LifePeriod]:
    """Put together consecutive rows that say the same, and end each period where another begins."""
    periods: list[LifePeriod] = []
    content: int | None = None
    failure: int | None = None
    for row in rows:
        if row.status == SUCCEEDED and failure is not None:
            periods[failure] = replace(periods[failure], until=row.since)
            failure = None
        is_open = content if row.status == SUCCEEDED else failure
        if is_open is not None:
            before = periods[is_open]
            if (before.written_by, what_it_says(before)) == (row.written_by, what_it_says(row)):
                last, confirmed = row.confirmed_at or row.since, before.confirmed + 1 + row.confirmed
                periods[is_open] = replace(before, confirmed=confirmed, confirmed_at=last)
                continue
            periods[is_open] = replace(before, until=row.since)
        if row.status == SUCCEEDED:
            content = len(periods)
        else:
            failure = len(periods)
        periods.append(row)
    return periods
