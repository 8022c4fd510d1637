"""Tell what a run confirmed: the records for which it wrote no row of history, as nothing had changed."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, String, and_, cast, null, select
from sqlalchemy.orm import InstrumentedAttribute

from db.ledger.tables import Generation, StandingContent, StoredRun, StoredStep, WorkingRow
from db.session import rows_of
from db.words import CACHE, FAILED, LIVE, NOT_OVER, SKIPPED, SUCCEEDED

Confirmed = Select[tuple[str, str, str | None, str | None]]
"""Selects `step`, `record_key`, `generation_id` and `lease_id`: of the helper that found it, None for others."""
_NOBODY: Any = cast(null(), String).label("lease_id")
_Column = InstrumentedAttribute[str | None]
Again = dict[str, Counter[tuple[str, str]]]
"""For each step, in the order in which they began: how many were met again, by status and origin."""


def count_again(connection: Connection, run_ids: Sequence[str]) -> dict[str, Again]:
    """Count for each run what it confirmed, by step; runs of earlier releases have no such counts."""
    steps = select(StoredStep.__table__).where(StoredStep.run_id.in_(run_ids)).order_by(StoredStep.position)
    found: dict[str, Again] = {run_id: {} for run_id in run_ids}
    for step in connection.execute(steps):
        found[step.run_id][step.step] = Counter(
            {
                (SUCCEEDED, CACHE): step.unchanged,
                (FAILED, LIVE): step.failed_again,
                (SKIPPED, LIVE): step.skipped_again,
            }
        )
    return found


def confirmed_contents(engine: Engine, run_id: str) -> Confirmed:
    """Select what stood before and still does.

    While the run is open that is known for each record, by the rows that it works with. After it closed it is known as
    long as no later run has confirmed the same record or changed it.
    """
    if _is_open(engine, run_id):
        return _worked_on(run_id, WorkingRow.status == SUCCEEDED)
    standing, by = StandingContent.generation_id, StandingContent.confirmed_run_id
    return _stands_for(run_id, standing, by, StoredStep.unchanged > 0)


def confirmed_failures(engine: Engine, run_id: str) -> Confirmed:
    """Select the failures that were met again in the same way; known for as long as contents are."""
    if _is_open(engine, run_id):
        return _worked_on(run_id, WorkingRow.status != SUCCEEDED)
    met_again = StoredStep.failed_again + StoredStep.skipped_again > 0
    return _stands_for(run_id, StandingContent.failing_id, StandingContent.failing_run_id, met_again)


def _is_open(engine: Engine, run_id: str) -> bool:
    found = rows_of(engine, select(StoredRun.status).where(StoredRun.id == run_id))
    return bool(found) and found[0].status in NOT_OVER


def _worked_on(run_id: str, *which: ColumnElement[bool]) -> Confirmed:
    columns = (WorkingRow.step, WorkingRow.record_key, WorkingRow.generation_id, WorkingRow.lease_id)
    return select(*columns).where(WorkingRow.run_id == run_id, *which)


def _stands_for(run_id: str, generation_id: _Column, by: _Column, counted: ColumnElement[bool]) -> Confirmed:
    # By the steps that counted some: the others, and all of earlier releases, are not looked through.
    place = and_(
        StandingContent.flow == StoredRun.flow,
        StandingContent.step == StoredStep.step,
        StandingContent.endpoint == StoredRun.endpoint,
    )
    columns = (StandingContent.step, StandingContent.record_key, generation_id.label("generation_id"))
    return (
        select(*columns, _NOBODY)
        .select_from(StoredRun)
        .join(StoredStep, StoredStep.run_id == StoredRun.id)
        .join(StandingContent, place)
        .join(Generation, Generation.id == generation_id)
        .where(StoredRun.id == run_id, counted, by == run_id, Generation.run_id != run_id)
    )
