"""Estimate what the ledger's own cache saved a run: the original cost of the answers that the run reused."""

from typing import Any

from sqlalchemy import Connection, Select, func, select, union_all, update

from db.rollups.attempt_sums import COST, dollars_of
from db.rollups.shard_runs import shards_in
from db.tables import Attempt, Generation, StoredStep, WorkingRow
from db.words import CACHE, SUCCEEDED


def saved_by_step(run_id: str) -> Select[tuple[str, Any]]:
    """Select `step` and `saved_e10`, in units, for each step in which a run reused answers; null: no known price.

    These are the answers of its cached generations and, while the run has its working rows, of its unchanged records.
    Answers that its own shards requested are left out.
    """
    g = Generation
    cached = select(g.step, g.source_generation_id.label("written_by")).where(
        g.run_id == run_id, g.replaced_by == "", g.origin == CACHE, g.status == SUCCEEDED
    )
    unchanged = (
        select(WorkingRow.step, func.coalesce(g.source_generation_id, g.id))
        .join(g, g.id == WorkingRow.generation_id)
        .where(WorkingRow.run_id == run_id, WorkingRow.status == SUCCEEDED)
    )
    reused = union_all(cached, unchanged).subquery()
    return (
        select(reused.c.step, func.sum(COST).label("saved_e10"))
        .join(Attempt, Attempt.generation_id == reused.c.written_by)
        .where(Attempt.run_id.not_in(select(shards_in([run_id]).subquery().c.member)))
        .group_by(reused.c.step)
    )


def store_savings(connection: Connection, run_id: str) -> None:
    """Write what each step of a run saved; it must still have its working rows."""
    saved = saved_by_step(run_id)
    for step, units in connection.execute(saved).all():
        its_row = update(StoredStep).where(StoredStep.run_id == run_id, StoredStep.step == step)
        connection.execute(its_row.values(saved_usd=None if units is None else dollars_of(units)))
