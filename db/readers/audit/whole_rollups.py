"""The rollups with the runs that are not added up yet: one statement adds both, so that no run counts twice or not."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Subquery, select, union_all

from db.columns import Base
from db.rollups.grouped import added_up
from db.rollups.marks import unmarked
from db.tables import RolledUp


def whole(rollup: type[Base]) -> Subquery:
    """Select the rows of a rollup table for all runs: the stored ones of closed runs, live sums of all others."""
    closed = select(rollup.__table__).where(rollup.__table__.c.run_id.in_(select(RolledUp.run_id)))
    return union_all(closed, added_up(rollup, unmarked())).subquery()


def days_of(day: Any, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """Select the rows of rollups of the UTC days that a period touches; the rollups know no shorter times."""
    found: list[ColumnElement[bool]] = []
    if since is not None:
        found.append(day >= _utc_date(since))
    if until is not None:
        found.append(day <= _utc_date(until - timedelta(microseconds=1)))
    return found


def _utc_date(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()
