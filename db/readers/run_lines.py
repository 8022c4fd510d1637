"""List runs with their figures: a page of them takes as many statements as one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, select

from db.ledger.tables import StoredRun
from db.readers.figures import StepCount, TotalUsage, count_generations_of, usage_of
from db.readers.runs import matches
from db.session import in_parts
from db.words import CACHED, SUCCEEDED


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as a list of runs shows it."""

    id: str
    flow: str
    endpoint: str
    trigger: str
    status: str
    started_at: datetime
    ended_at: datetime | None
    generations: int
    succeeded: int
    cached: int
    usage: TotalUsage


def list_runs(engine: Engine, *, flow: str | None = None, limit: int = 20) -> list[RunLine]:
    """List runs, the newest first; a shard stands in the figures of its run, not in a line of its own."""
    statement = select(StoredRun).where(StoredRun.parent_run_id.is_(None)).order_by(StoredRun.id.desc()).limit(limit)
    if flow is not None:
        statement = statement.where(StoredRun.flow == flow)
    with engine.connect() as connection:
        runs = list(connection.execute(statement))
    return _lines(engine, runs)


def find_run(engine: Engine, run_id: str) -> RunLine | None:
    """Return the run with this id, or with the only id that ends or begins so; None where there is none or several."""
    with engine.connect() as connection:
        runs = list(connection.execute(select(StoredRun).where(matches(StoredRun.id, run_id)).limit(2)))
    return _lines(engine, runs)[0] if len(runs) == 1 else None


def _lines(engine: Engine, runs: Sequence[Row[Any]]) -> list[RunLine]:
    counts: dict[str, list[StepCount]] = {}
    used: dict[str, TotalUsage] = {}
    for part in in_parts([run.id for run in runs]):
        counts |= count_generations_of(engine, part)
        used |= usage_of(engine, part)
    return [
        RunLine(
            id=run.id,
            flow=run.flow,
            endpoint=run.endpoint,
            trigger=run.trigger,
            status=run.status,
            started_at=run.started_at,
            ended_at=run.ended_at,
            generations=sum(line.count for line in counts[run.id]),
            succeeded=sum(line.count for line in counts[run.id] if line.counted_as == SUCCEEDED),
            cached=sum(line.count for line in counts[run.id] if line.counted_as == CACHED),
            usage=used[run.id],
        )
        for run in runs
    ]
