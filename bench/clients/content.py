"""Measure Presswork as a user runs it: the flow `content` with a Prefect server that is already running.

Time is measured from the run's opening to the end of the flow, CPU until Prefect has recorded the run's events.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from sqlalchemy import func, select

from bench.clients.client import Options, run_client
from bench.meter import Meter, Sample, cpu_of
from db.ledger.connecting import connect_ledger
from db.tables import Attempt, Generation, StoredRun
from flows.content import content
from presswork import RunOptions, Summary
from presswork.engine.live import FEW, MANY_SIZE
from presswork.engine.resources.event_loop import run_on_loop
from presswork.report.progress import watch

QUIET_CPU_S, WITHIN_S = 0.1, 60.0


def run_content(meter: Meter, options: Options) -> Sample:
    """Run a template over all items of PRESSWORK_SOURCE_URL."""
    stop_watching = watch(lambda _progress: meter.start())
    summary = _run(options)
    stop_watching()
    sample = Sample(records=summary.records, succeeded=summary.succeeded + summary.cached, requests=summary.requests)
    sample.cost_usd, sample.cache_writes = float(summary.cost_usd or 0), summary.prompt_cache.writes
    meter.read(sample)
    answers = summary.succeeded
    sample.task_runs_expected = answers if answers <= FEW else math.ceil(answers / MANY_SIZE)
    APILogWorker.drain_all(timeout=30)
    EventsWorker.drain_all(timeout=30)
    meter.read_own(sample)
    flow_run = _read_ledger(sample, summary.run_id)
    sample.task_runs = asyncio.run(_recorded_task_runs(flow_run, sample.task_runs_expected))
    _wait_until_quiet(options.watched["server"])
    meter.read_watched(sample)
    return sample


def run_again(meter: Meter, options: Options) -> Sample:
    """Run a template `runs` times over the same items, which all have content, in one process."""
    sample = Sample()
    meter.start()
    for _ in range(options.runs):
        summary = _run(options)
        sample.records += summary.records
        sample.succeeded += summary.cached
        sample.requests += summary.requests
    meter.read(sample)
    return sample


def _run(options: Options) -> Summary:
    return run_on_loop(content(template=options.template, options=RunOptions(concurrency=options.concurrency)))


def _wait_until_quiet(pid: int) -> None:
    # The server works on the run's events for a while, and this CPU belongs to the run too.
    deadline = time.monotonic() + WITHIN_S
    before = cpu_of(pid)
    while time.monotonic() < deadline:
        time.sleep(1)
        used = cpu_of(pid)
        if used - before < QUIET_CPU_S:
            return
        before = used


def _read_ledger(sample: Sample, run_id: str) -> UUID:
    """Write the times of the first and last request into the sample, and return the Prefect flow run's id."""
    ledger = connect_ledger(os.environ["PRESSWORK_DATABASE_URL"])
    with ledger.connect() as connection:
        first, last = connection.execute(
            select(func.min(Attempt.started_at), func.max(Attempt.ended_at)).where(Attempt.run_id == run_id)
        ).one()
        found = connection.execute(select(StoredRun.prefect_flow_run_id).where(StoredRun.id == run_id)).scalar_one()
        ended = func.max(Attempt.ended_at).label("ended")
        chosen = select(ended).where(Attempt.run_id == run_id).group_by(Attempt.generation_id).order_by(ended)
        done = connection.execute(chosen).scalars().all()
        rows = select(func.count()).where(Generation.run_id == run_id).group_by(Generation.record_key)
        times = rows.having(func.count() == 1).subquery()
        sample.not_once = sample.records - connection.execute(select(func.count()).select_from(times)).scalar_one()
    ledger.dispose()
    sample.p95_s = _epoch(done[math.ceil(0.95 * len(done)) - 1]) - _epoch(first) if done else 0.0
    sample.first_sent, sample.last_answered = _epoch(first), _epoch(last)
    return UUID(str(found))


def _epoch(moment: datetime | None) -> float:
    if moment is None:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


async def _recorded_task_runs(flow_run: UUID, expected: int) -> int:
    """Count the task runs that Prefect has recorded as completed; wait until there are `expected` ones, or too long."""
    deadline = time.monotonic() + WITHIN_S
    wanted = {"flow_runs": {"id": {"any_": [str(flow_run)]}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    async with get_client() as client:
        while True:
            count = int((await client.request("POST", "/task_runs/count", json=wanted)).json())
            if count >= expected or time.monotonic() > deadline:
                return count
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    run_client({"content": run_content, "again": run_again})
