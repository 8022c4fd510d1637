"""Tell which shards worked for a run of an earlier release, in which each shard was a run of its own.

A run's figures count what its shards did. A helper of today writes rows of the run that it works for: for such runs all
that is selected here is the run itself.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, Subquery, func, or_, select, union_all
from sqlalchemy.orm import aliased

from db.ledger.tables import Generation, StoredRun
from db.session import rows_of


def shards_of(engine: Engine, run_id: str) -> list[str]:
    """Return the runs that worked for this one, which was spread over them, while it went on.

    Also those that an earlier run of the same Prefect flow run started, and that this one found at work.
    """
    pairs = shards_in([run_id]).subquery()
    return [run.member for run in rows_of(engine, select(pairs.c.member).order_by(pairs.c.member))]


def shards_in(run_ids: Sequence[str]) -> Select[tuple[str, str]]:
    """Select the shards of runs, as `whole` and `member`."""
    whole, parent, shard = aliased(StoredRun), aliased(StoredRun), aliased(StoredRun)
    pairs = select(whole.id.label("whole"), shard.id.label("member"))
    return pairs.where(whole.id.in_(run_ids), *_is_shard_of(whole, parent, shard))


def with_shards(run_ids: Sequence[str]) -> Subquery:
    """Select runs and their shards, as `whole` and `member`: each run is a member of itself."""
    own = select(StoredRun.id.label("whole"), StoredRun.id.label("member")).where(StoredRun.id.in_(run_ids))
    return union_all(own, shards_in(run_ids)).subquery()


def asked_by_shards(run_ids: Sequence[str]) -> Select[tuple[str, str, str, str, int]]:
    """Count the generations of runs whose text one of their shards asked for, by run, step, status and origin."""
    alike = (Generation.run_id, Generation.step, Generation.status, Generation.origin)
    whole, parent, shard = aliased(StoredRun), aliased(StoredRun), aliased(StoredRun)
    source = aliased(Generation)
    # By the ids of runs that have shards: the others need no join.
    with_any = select(shards_in(run_ids).subquery().c.whole)
    # A prompt that stands twice was asked once.
    return (
        select(*alike, func.count(Generation.source_generation_id.distinct()))
        .join(source, source.id == Generation.source_generation_id)
        .join(shard, shard.id == source.run_id)
        .join(whole, whole.id == Generation.run_id)
        .join(parent, parent.id == shard.parent_run_id)
        .where(Generation.run_id.in_(with_any), *_is_shard_of(whole, parent, shard))
        .group_by(*alike)
    )


def _is_shard_of(whole: Any, parent: Any, shard: Any) -> tuple[ColumnElement[bool], ...]:
    """Join a run with its shards, by way of the run that has started them."""
    return (
        parent.id == shard.parent_run_id,
        or_(parent.id == whole.id, parent.prefect_flow_run_id == whole.prefect_flow_run_id),
        or_(shard.ended_at.is_(None), shard.ended_at >= whole.started_at),
        or_(whole.ended_at.is_(None), shard.started_at <= whole.ended_at),
    )
