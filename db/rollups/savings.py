"""Estimate what the ledger's own cache saved a run: the original cost of the answers that the run reused."""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, or_, select, union_all, update

from db.rollups.attempt_sums import COST, dollars_of
from db.rollups.shard_runs import shards_in
from db.tables import Attempt, Generation, StoredStep, WorkingRow
from db.words import CACHE, DONE, SUCCEEDED

_RUN: Any = bindparam("of_run")
_STEPS: Any = bindparam("of_steps", expanding=True)
_ITS_STEP = (StoredStep.run_id == _RUN, StoredStep.step == bindparam("of_step"))
_STORE = update(StoredStep).where(*_ITS_STEP).values(saved_usd=bindparam("saved"))


@cache
def saved_by_step() -> Select[tuple[str, Any]]:
    """Select `step` and `saved_e10`, in units, for each step in which a run reused answers; null: no known price.

    These are the answers of its cached generations and, while the run has its working rows, of its unchanged records.
    Answers that its own shards requested are left out. Parameters: `of_run` and the steps `of_steps`.
    """
    g, w = Generation, WorkingRow
    cached = select(g.step, g.source_generation_id.label("written_by")).where(
        g.run_id == _RUN, g.replaced_by == "", g.origin == CACHE, g.status == SUCCEEDED, g.step.in_(_STEPS)
    )
    unchanged = (
        select(w.step, func.coalesce(g.source_generation_id, g.id))
        .join(g, g.id == w.generation_id)
        .where(w.run_id == _RUN, w.status == SUCCEEDED, w.step.in_(_STEPS))
    )
    reused = union_all(cached, unchanged).subquery()
    return (
        select(reused.c.step, func.sum(COST).label("saved_e10"))
        .join(Attempt, Attempt.generation_id == reused.c.written_by)
        .where(Attempt.run_id.not_in(select(shards_in([_RUN]).subquery().c.member)))
        .group_by(reused.c.step)
    )


def store_savings(connection: Connection, run_id: str, steps: Collection[str]) -> None:
    """Write what each of these steps of a run saved, null for nothing; the run must still have its working rows."""
    found = connection.execute(saved_by_step(), {"of_run": run_id, "of_steps": sorted(steps)})
    saved = dict(found.tuples().all())
    for step in steps:
        dollars = None if saved.get(step) is None else dollars_of(saved[step])
        connection.execute(_STORE, {"of_run": run_id, "of_step": step, "saved": dollars})


def was_pruned() -> ColumnElement[bool]:
    """Select the steps of runs whose unchanged records are counted, but no longer listed in working rows."""
    w, s = WorkingRow, StoredStep
    listed = select(w.step).where(w.run_id == s.run_id, w.step == s.step, w.status == SUCCEEDED).exists()
    return (s.unchanged > 0) & ~listed


def store_missing_savings(connection: Connection, run_id: str) -> None:
    """Write what the steps of a run saved for which it is not stored yet; a step that is done stored it then.

    What was stored stays when the working rows of its unchanged records are pruned: the rest would be a part of it.
    """
    if steps := connection.scalars(_unknown(), {"of_run": run_id}).all():
        store_savings(connection, run_id, steps)


@cache
def _unknown() -> Select[tuple[str]]:
    s = StoredStep
    return select(s.step).where(s.run_id == _RUN, or_(s.state != DONE, s.saved_usd.is_(None)), ~was_pruned())
