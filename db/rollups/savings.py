"""Estimate what the ledger's own cache saved a run: the original cost of the answers that the run reused."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select, union_all, update

from db.rollups.attempt_sums import COST, dollars_of
from db.rollups.shard_runs import shards_in
from db.tables import Attempt, Generation, StoredStep, WorkingRow
from db.words import CACHE, DONE, SUCCEEDED


def saved_by_step(run_id: str, steps: Collection[str] | None = None) -> Select[tuple[str, Any]]:
    """Select `step` and `saved_e10`, in units, for each step in which a run reused answers; null: no known price.

    These are the answers of its cached generations and, while the run has its working rows, of its unchanged records.
    Answers that its own shards requested are left out. With `steps`, only these are added up.
    """
    g, w = Generation, WorkingRow
    cached = select(g.step, g.source_generation_id.label("written_by")).where(
        g.run_id == run_id, g.replaced_by == "", g.origin == CACHE, g.status == SUCCEEDED
    )
    unchanged = (
        select(w.step, func.coalesce(g.source_generation_id, g.id))
        .join(g, g.id == w.generation_id)
        .where(w.run_id == run_id, w.status == SUCCEEDED)
    )
    if steps is not None:
        cached, unchanged = cached.where(g.step.in_(sorted(steps))), unchanged.where(w.step.in_(sorted(steps)))
    reused = union_all(cached, unchanged).subquery()
    return (
        select(reused.c.step, func.sum(COST).label("saved_e10"))
        .join(Attempt, Attempt.generation_id == reused.c.written_by)
        .where(Attempt.run_id.not_in(select(shards_in([run_id]).subquery().c.member)))
        .group_by(reused.c.step)
    )


def store_savings(connection: Connection, run_id: str, steps: Collection[str] | None = None) -> None:
    """Write what each step of a run saved, or each of these steps; the run must still have its working rows."""
    saved = saved_by_step(run_id, steps)
    for step, units in connection.execute(saved).all():
        its_row = update(StoredStep).where(StoredStep.run_id == run_id, StoredStep.step == step)
        connection.execute(its_row.values(saved_usd=None if units is None else dollars_of(units)))


def was_pruned() -> ColumnElement[bool]:
    """Select the steps of runs whose unchanged records are counted, but no longer listed in working rows."""
    w, s = WorkingRow, StoredStep
    listed = select(w.step).where(w.run_id == s.run_id, w.step == s.step, w.status == SUCCEEDED).exists()
    return (s.unchanged > 0) & ~listed


def store_missing_savings(connection: Connection, run_id: str) -> None:
    """Write what the steps of a run saved for which it is not stored yet; a step that is done stored it then.

    What was stored stays when the working rows of its unchanged records are pruned: the rest would be a part of it.
    """
    s = StoredStep
    unknown = select(s.step).where(s.run_id == run_id, or_(s.state != DONE, s.saved_usd.is_(None)), ~was_pruned())
    if steps := connection.scalars(unknown).all():
        store_savings(connection, run_id, steps)
