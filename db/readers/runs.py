"""Read runs, and tell which shards worked for which of them: a run's figures count what its shards did."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, Subquery, or_, select, union_all
from sqlalchemy.orm import aliased

from db.columns import Base
from db.ledger.tables import StoredRun
from db.session import rows_of

SHORTEST_ID = 6  # characters of an id that are taken for a part of one


def read_run(engine: Engine, run_id: str) -> Mapping[str, Any] | None:
    """Return a run's row, by its whole id: all columns of its table."""
    with engine.connect() as connection:
        return row_of(connection, StoredRun, StoredRun.id == run_id)


def statuses_of_flow_runs(engine: Engine, prefect_flow_run_ids: Sequence[str]) -> dict[str, str]:
    """Return the status of the newest run of each Prefect flow run that has one."""
    statement = (
        select(StoredRun.prefect_flow_run_id, StoredRun.status)
        .where(StoredRun.prefect_flow_run_id.in_(prefect_flow_run_ids))
        .order_by(StoredRun.id)
    )
    return {str(flow_run): status for flow_run, status in rows_of(engine, statement)}


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
    return pairs.where(whole.id.in_(run_ids), *is_shard_of(whole, parent, shard))


def is_shard_of(whole: Any, parent: Any, shard: Any) -> tuple[ColumnElement[bool], ...]:
    """Join a run with its shards, by way of the run that has started them."""
    return (
        parent.id == shard.parent_run_id,
        or_(parent.id == whole.id, parent.prefect_flow_run_id == whole.prefect_flow_run_id),
        or_(shard.ended_at.is_(None), shard.ended_at >= whole.started_at),
        or_(whole.ended_at.is_(None), shard.started_at <= whole.ended_at),
    )


def with_shards(run_ids: Sequence[str]) -> Subquery:
    """Select runs and their shards, as `whole` and `member`: each run is a member of itself."""
    own = select(StoredRun.id.label("whole"), StoredRun.id.label("member")).where(StoredRun.id.in_(run_ids))
    return union_all(own, shards_in(run_ids)).subquery()


def matches(column: Any, text: str) -> ColumnElement[bool]:
    """Select ids by a whole one, its beginning or its end."""
    # An id's end tells runs of one day apart, its beginning is the time: people copy either.
    plain = "".join(character for character in text.lower() if character.isalnum() or character == "-")
    parts = (column.like(f"%{plain}"), column.like(f"{plain}%")) if len(plain) >= SHORTEST_ID else ()
    return or_(column == text, *parts)


def row_of(connection: Connection, table: type[Base], *which: ColumnElement[bool]) -> dict[str, Any] | None:
    """Return a row as column names and values; None where there is none."""
    found = connection.execute(select(table.__table__).where(*which)).mappings().first()
    return None if found is None else dict(found)
