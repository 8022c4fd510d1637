"""Read a record's life: which content stood for it from when to when, and the failures in between.

A ledger of an earlier release has a row for each run that found a record unchanged. Consecutive rows that say the same
are one period here, and each of them is a confirmation, as those are that later releases only count.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Engine, Row, and_, func, or_, select

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
    of_record = and_(
        *(Generation.__table__.c[column.name] == column for column in StandingContent.__table__.primary_key)
    )
    stands = (
        StandingContent.generation_id.label("standing_id"),
        StandingContent.confirmed.label("standing_confirmed"),
        StandingContent.confirmed_at.label("standing_confirmed_at"),
        StandingContent.failing_id,
        StandingContent.failing,
        StandingContent.failing_at,
    )
    statement = (
        select(
            *(column for column in Generation.__table__.c if column.name != "output"),
            func.coalesce(Generation.source_generation_id, Generation.id).label("written_by"),
            *stands,
        )
        .join(StandingContent, of_record)
        .where(StandingContent.record_key == key, or_(StandingContent.flow == name, StandingContent.step == name))
        .order_by(Generation.flow, Generation.step, Generation.endpoint, Generation.id)
    )
    if endpoint is not None:
        statement = statement.where(StandingContent.endpoint == endpoint)
    found: list[LifePeriod] = []
    for _place, rows in groupby(rows_of(engine, statement), key=lambda row: (row.flow, row.step, row.endpoint)):
        found += _periods(_as_period(row) for row in rows)
    return found


def _as_period(row: Row[Any]) -> LifePeriod:
    """Make a period of one row of history, with what confirmed it and wrote no row."""
    # What still stands is confirmed in its row of content, what stood before in its own.
    confirmed, confirmed_at = row.confirmed or 0, row.confirmed_at
    if row.id == row.standing_id:
        confirmed, confirmed_at = row.standing_confirmed, row.standing_confirmed_at
    elif row.id == row.failing_id:
        confirmed, confirmed_at = row.failing, row.failing_at
    return LifePeriod(
        flow=row.flow,
        step=row.step,
        endpoint=row.endpoint,
        status=row.status,
        since=row.created_at,
        until=None,
        record_hash=row.record_hash,
        template_hash=row.template_hash,
        generation_id=row.id,
        run_id=row.run_id,
        written_by=row.written_by if row.status == SUCCEEDED else None,
        error_kind=row.error_kind,
        error_message=row.error_message,
        confirmed=confirmed,
        confirmed_at=confirmed_at if confirmed else None,
    )


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
