"""Find the shards of runs of earlier releases, in which each shard was a separate run.

A run's figures include its shards. Today's helpers write rows of the run itself, so today's runs have no shards here.
"""

from functools import cache

from sqlalchemy import Engine, Select, Subquery, func, select, union_all

from db.columns import aliased
from db.rollups.shard_runs import RUN_IDS, is_shard_of, shards_in
from db.session import rows_of
from db.tables import Generation, StoredRun


def shards_of(engine: Engine, run_id: str) -> list[str]:
    """Return the shards that worked for a run while it was running.

    They include shards that an earlier run of the same Prefect flow run started and that were still running.
    """
    pairs = shards_in([run_id]).subquery()
    return [run.member for run in rows_of(engine, select(pairs.c.member).order_by(pairs.c.member))]


@cache
def with_shards() -> Subquery:
    """Select the runs RUN_IDS and their shards as `whole` and `member`; each run is also a member of itself."""
    own = select(StoredRun.id.label("whole"), StoredRun.id.label("member")).where(StoredRun.id.in_(RUN_IDS))
    return union_all(own, shards_in(RUN_IDS)).subquery()


@cache
def requested_by_shards() -> Select[tuple[str, str, str, str, int]]:
    """Count the generations of RUN_IDS whose text one of their shards requested, by run, step, status and origin."""
    alike = (Generation.run_id, Generation.step, Generation.status, Generation.origin)
    whole, parent, shard = aliased(StoredRun), aliased(StoredRun), aliased(StoredRun)
    source = aliased(Generation)
    # Only for runs that have shards; the others need no join.
    with_any = select(shards_in(RUN_IDS).subquery().c.whole)
    # Duplicates of a prompt were requested once.
    return (
        select(*alike, func.count(Generation.source_generation_id.distinct()))
        .join(source, source.id == Generation.source_generation_id)
        .join(shard, shard.id == source.run_id)
        .join(whole, whole.id == Generation.run_id)
        .join(parent, parent.id == shard.parent_run_id)
        .where(Generation.run_id.in_(with_any), *is_shard_of(whole, parent, shard))
        .group_by(*alike)
    )
