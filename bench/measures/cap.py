"""Measure the bill of a job with a cost cap that is killed at half of the cap and resumed three times."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal

from sqlalchemy import create_engine, text

from bench.material import TEMPLATE
from bench.meter import Sample
from bench.stage import ClientError, Stage
from db.clock import now
from presswork.prices import Usage, cost_of
from presswork.settings import ROOT

CAP_USD, RESUMES, WITHIN_S = Decimal("1.00"), 3, 600.0
RUN = """
import asyncio
from flows.content import content
from presswork import RunOptions
asyncio.run(content({template!r}, options=RunOptions(max_cost={cap}, concurrency={concurrency}, resumes={resumes!r})))
"""


def capped(records: int, latency_ms: int) -> Callable[[Stage], Sample]:
    """Return a measurement that kills a run at half of its cap, resumes it, and reports the whole bill."""

    def take(stage: Stage) -> Sample:
        stage.set_sandbox(latency_ms=latency_ms)
        ledger = stage.new_sqlite()
        began = time.monotonic()
        client = _start(stage, records, ledger, None)
        while _billed(stage) < CAP_USD / 2:
            if client.poll() is not None or time.monotonic() - began > WITHIN_S:
                client.kill()
                raise ClientError("the run ended, or took too long, before it could be killed")
            time.sleep(0.01)
        client.kill()
        client.wait()
        killed = _last_run(ledger)
        for _ in range(RESUMES):
            _start(stage, records, ledger, killed).wait(WITHIN_S)
        answers = stage.sandbox_stats()["served"]["answers"]
        return Sample(
            records=answers,
            succeeded=answers,
            requests=stage.sandbox_stats()["requests"],
            wall_s=time.monotonic() - began,
            billed_usd=float(_billed(stage)),
        )

    return take


def _start(stage: Stage, records: int, ledger: str, resumes: str | None) -> subprocess.Popen[bytes]:
    code = RUN.format(template=TEMPLATE, cap=CAP_USD, concurrency=stage.concurrency, resumes=resumes)
    environment = stage.environment(f"sqlite:///{stage.source(records)}", ledger)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def _billed(stage: Stage) -> Decimal:
    stats, total = stage.sandbox_stats(), Decimal(0)
    for which in ("served", "dropped"):
        used = Usage(**{name: count for name, count in stats[which].items() if name != "answers"})
        total += cost_of("claude-sonnet-4-6", used, now().date()) or Decimal(0)
    return total


def _last_run(ledger: str) -> str:
    engine = create_engine(ledger)
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT max(id) FROM runs"))
    engine.dispose()
    return str(found)
