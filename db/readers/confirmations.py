"""Read what a run confirmed: the records without a row of history in this run, because nothing had changed."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Engine, Select, String, and_, bindparam, cast, null, select

from db.rollups.shard_runs import RUN_IDS
from db.session import rows_of
from db.tables import Generation, StandingContent, StoredRun, StoredStep, WorkingRow
from db.words import CACHE, FAILED, LIVE, NOT_OVER, SKIPPED, SUCCEEDED

Confirmed = Select[tuple[str, str, str | None, str | None]]
"""Selects `step`, `record_key`, `generation_id` and `lease_id`, which is None unless a helper confirmed the record.

Such a statement is made once; its parameter `of_run` is the run.
"""
_NO_LEASE: Any = cast(null(), String).label("lease_id")
_Column = Column[str | None]
_RUN: Any = bindparam("of_run")
_STATUS = select(StoredRun.status).where(StoredRun.id == _RUN)
ConfirmedCounts = dict[str, Counter[tuple[str, str]]]
"""The number of confirmed records of each step, by status and origin; steps are in the order in which they began."""
_STEPS = select(StoredStep.__table__).where(StoredStep.run_id.in_(RUN_IDS)).order_by(StoredStep.position)


def count_confirmed(connection: Connection, run_ids: Sequence[str]) -> dict[str, ConfirmedCounts]:
    """Count the records that each run confirmed, by step; runs of earlier releases have no such counts."""
    found: dict[str, ConfirmedCounts] = {run_id: {} for run_id in run_ids}
    for step in connection.execute(_STEPS, {"run_ids": run_ids}):
        found[step.run_id][step.step] = Counter(
            {
                (SUCCEEDED, CACHE): step.unchanged,
                (FAILED, LIVE): step.failed_again,
                (SKIPPED, LIVE): step.skipped_again,
            }
        )
    return found


def confirmed_contents(engine: Engine, run_id: str) -> Confirmed:
    """Select the contents that a run found unchanged.

    While the run is open, its working rows list all of them. After it has closed, a record is listed until a later run
    confirms or changes it.
    """
    return _contents(is_open=_is_open(engine, run_id))


@cache
def _contents(*, is_open: bool) -> Confirmed:
    if is_open:
        return _of_open_run(WorkingRow.status == SUCCEEDED)
    return _of_closed_run(StandingContent.generation_id, StandingContent.confirmed_run_id, StoredStep.unchanged > 0)


def confirmed_failures(engine: Engine, run_id: str) -> Confirmed:
    """Select the failures that a run repeated unchanged; listed for as long as `confirmed_contents` lists contents."""
    return _failures(is_open=_is_open(engine, run_id))


@cache
def _failures(*, is_open: bool) -> Confirmed:
    if is_open:
        return _of_open_run(WorkingRow.status != SUCCEEDED)
    has_any = StoredStep.failed_again + StoredStep.skipped_again > 0
    return _of_closed_run(StandingContent.failing_id, StandingContent.failing_run_id, has_any)


def _is_open(engine: Engine, run_id: str) -> bool:
    found = rows_of(engine, _STATUS, {"of_run": run_id})
    return bool(found) and found[0].status in NOT_OVER


def _of_open_run(*which: ColumnElement[bool]) -> Confirmed:
    columns = (WorkingRow.step, WorkingRow.record_key, WorkingRow.generation_id, WorkingRow.lease_id)
    return select(*columns).where(WorkingRow.run_id == _RUN, *which)


def _of_closed_run(generation_id: _Column, by: _Column, counted: ColumnElement[bool]) -> Confirmed:
    # Only steps with such counts are searched, so none of earlier releases.
    place = and_(
        StandingContent.flow == StoredRun.flow,
        StandingContent.step == StoredStep.step,
        StandingContent.endpoint == StoredRun.endpoint,
    )
    columns = (StandingContent.step, StandingContent.record_key, generation_id.label("generation_id"))
    return (
        select(*columns, _NO_LEASE)
        .select_from(StoredRun)
        .join(StoredStep, StoredStep.run_id == StoredRun.id)
        .join(StandingContent, place)
        .join(Generation, Generation.id == generation_id)
        .where(StoredRun.id == _RUN, counted, by == _RUN, Generation.run_id != _RUN)
    )
