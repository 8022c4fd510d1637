"""Read a record's history: the periods in which each content was current, and the failures between them.

Earlier releases wrote a row for each run that found a record unchanged; later ones only count it as a confirmation.
So equal consecutive rows are merged into one period here, and each merged row counts as a confirmation. Trials are not
among them: a trial's answer was never current.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, and_, case, func, null, select, tuple_

from db.sameness import compared_fields
from db.session import rows_of
from db.tables import Generation, StandingContent
from db.tables.tried_rows import is_of_trial
from db.words import SUCCEEDED, Status


@dataclass(frozen=True, slots=True)
class LifePeriod:
    """The period in which one outcome of a record in a step was current: a content or a failure.

    `until` is None if it is still current. A failure does not end a content's period. `generation_id` is the period's
    first generation, in `run_id`; `written_by` is the generation that has the content's text. `confirmed` counts the
    confirmations, the last one at `confirmed_at`.
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


@dataclass(frozen=True, slots=True)
class LifePlace:
    """A flow, a step and an endpoint: a record has one current content in each."""

    flow: str
    step: str
    endpoint: str


def read_life(engine: Engine, name: str, key: str, endpoint: str | None = None) -> list[LifePeriod]:
    """Return the periods of the record with this key; `name` is a flow, for all its steps, or a step.

    They are grouped by flow, step and endpoint, and sorted by their beginning within each group.
    """
    places = [each for each in find_places(engine, key, endpoint=endpoint) if name in {each.flow, each.step}]
    return [period for place in places for period in read_periods(engine, place, key)]


def find_places(
    engine: Engine, key: str, *, flow: str | None = None, step: str | None = None, endpoint: str | None = None
) -> list[LifePlace]:
    """Return where a record has an outcome, in the order of flow, step and endpoint; None sets no condition."""
    c = StandingContent
    columns = c.flow, c.step, c.endpoint
    given = zip(columns, (flow, step, endpoint), strict=True)
    wanted = [column == value for column, value in given if value is not None]
    own = c.__table__.alias("own")
    same_place = (own.c[column.name] == column for column in columns)
    has_record = select(own.c.record_key).where(*same_place, own.c.record_key == key).exists()
    found: list[LifePlace] = []
    with engine.connect() as connection:
        # One place after the other, because the key is the last column of the primary key: a condition on the key alone
        # would read the whole table.
        following = select(*columns, has_record).where(*wanted).order_by(*columns).limit(1)
        row = connection.execute(following).first()
        while row is not None:
            *place, has_outcome = row
            if has_outcome:
                found.append(LifePlace(*place))
            row = connection.execute(following.where(tuple_(*columns) > tuple_(*place))).first()
    return found


def read_periods(engine: Engine, place: LifePlace, key: str) -> list[LifePeriod]:
    """Return the periods of a record in one place, sorted by their beginning."""
    g, c = Generation, StandingContent
    of_record = and_(*(g.__table__.c[column.name] == column for column in c.__table__.primary_key))
    confirmed = _current_or(c.confirmed, c.failing, func.coalesce(g.confirmed, 0))
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
            case((confirmed > 0, _current_or(c.confirmed_at, c.failing_at, g.confirmed_at))).label("confirmed_at"),
        )
        .join(c, of_record)
        .where(c.flow == place.flow, c.step == place.step, c.endpoint == place.endpoint, c.record_key == key)
        .where(~is_of_trial(g.run_id))
        .order_by(g.id)
    )
    return _periods(LifePeriod(**row._asdict()) for row in rows_of(engine, statement))


def _current_or(content: Any, failure: Any, own: Any) -> Any:
    """Select `content` or `failure` for the current outcomes, which are confirmed in table content, else `own`."""
    is_content, is_failure = Generation.id == StandingContent.generation_id, Generation.id == StandingContent.failing_id
    return case((is_content, content), (is_failure, failure), else_=own)


def _periods(rows: Iterable[LifePeriod]) -> list[LifePeriod]:
    """Merge equal consecutive rows, and end each period when the next begins."""
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
            if (before.written_by, compared_fields(before)) == (row.written_by, compared_fields(row)):
                # The greatest time: rows are in the order of ids, and times of several processes can differ from it.
                last = max(row.confirmed_at or row.since, before.confirmed_at or row.since)
                confirmed = before.confirmed + 1 + row.confirmed
                periods[is_open] = replace(before, confirmed=confirmed, confirmed_at=last)
                continue
            periods[is_open] = replace(before, until=row.since)
        if row.status == SUCCEEDED:
            content = len(periods)
        else:
            failure = len(periods)
        periods.append(row)
    return periods
