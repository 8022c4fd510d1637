"""Shards of earlier releases, in which each shard was a separate run that counts in the run that started it."""

from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, or_, select

from db.columns import aliased
from db.tables import StoredRun

RUN_IDS: Any = bindparam("run_ids", expanding=True)
"""The runs for which a statement that is made once is executed."""


def shards_in(run_ids: Any) -> Select[tuple[str, str]]:
    """Select the shards of runs, as `whole` and `member`; `run_ids` are a sequence, or the parameter for one."""
    whole, parent, shard = aliased(StoredRun), aliased(StoredRun), aliased(StoredRun)
    pairs = select(whole.id.label("whole"), shard.id.label("member"))
    return pairs.where(whole.id.in_(run_ids), *is_shard_of(whole, parent, shard))


def is_shard_of(whole: Any, parent: Any, shard: Any) -> tuple[ColumnElement[bool], ...]:
    """Join a run with its shards through the run that started them."""
    return (
        parent.id == shard.parent_run_id,
        or_(parent.id == whole.id, parent.prefect_flow_run_id == whole.prefect_flow_run_id),
        or_(shard.ended_at.is_(None), shard.ended_at >= whole.started_at),
        or_(whole.ended_at.is_(None), shard.started_at <= whole.ended_at),
    )
