"""Give the engine's tests everything that a run needs, and look up what it left in the ledger and in Prefect.

A workshop runs flows without Prefect, in milliseconds (plain_host.py). In a test marked `prefect` it runs them under
Prefect on the session's server. The test itself reads the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import TaskRun
from sqlalchemy import Engine, create_engine, text

from db.clock import now
from db.ledger.connecting import open_ledger
from flows.content import content
from presswork import RunOptions, Summary
from presswork.prices import Usage, cost_of
from presswork.settings import ROOT
from sandbox import Sandbox
from tests.engine.forked import Forked, fork_code
from tests.engine.plain_host import PlainHost, run_plainly
from tests.waiting import until

NOTE = """---
select: SELECT id, name FROM items
key: id
output: SubjectLine
max_tokens: {max_tokens}
---
{{% block system %}}You write subject lines.{{% endblock %}}
{{% block user %}}{user}{{% endblock %}}
"""
RUN = """
import asyncio
{first}
from flows.content import content
from presswork import RunOptions
from tests.engine.plain_host import run_plainly
options = RunOptions(**{options!r})
run = content({template!r}, options=options) if {under_prefect} else None
asyncio.run(run or run_plainly(content, [], {template!r}, options=options))
"""
BILLED = ("served", "dropped")
Process = asyncio.subprocess.Process | Forked
USER = "A line about {{ record.name }}."


@dataclass
class Workshop:
    """Everything that a run needs; `run()` makes a run, and most other methods look at what it left.

    `hosts` has the hosts of the runs without Prefect, in their order.
    """

    sandbox: Sandbox
    ledger_url: str
    source_url: str
    templates: Path
    under_prefect: bool = True
    hosts: list[PlainHost] = field(default_factory=list)
    _engines: dict[str, Engine] = field(default_factory=dict)

    @property
    def ledger(self) -> Engine:
        if "ledger" not in self._engines:
            self._engines["ledger"] = open_ledger(self.ledger_url)
        return self._engines["ledger"]

    @property
    def source(self) -> Engine:
        if "source" not in self._engines:
            self._engines["source"] = create_engine(self.source_url)
        return self._engines["source"]

    def dispose(self) -> None:
        for engine in self._engines.values():
            engine.dispose()

    def items(self, items: dict[str, Any]) -> None:
        """Add records with these keys and names to the source table that the note's template reads."""
        with self.source.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS items (id VARCHAR(50) PRIMARY KEY, name TEXT)"))
            for key, name in items.items():
                connection.execute(text("INSERT INTO items VALUES (:id, :name)"), {"id": key, "name": name})

    def numbered(self, count: int) -> None:
        self.items({f"{number:05}": f"item {number}" for number in range(count)})

    def template(self, user: str = USER, *, name: str = "note", max_tokens: int = 256) -> None:
        (self.templates / f"{name}.md.j2").write_text(NOTE.format(user=user, max_tokens=max_tokens), encoding="utf-8")

    async def run(self, template: str = "note", **options: Any) -> Summary:
        """Run a template as a job, and return its summary."""
        summary = await self.call(content, template, options=RunOptions(**options))
        assert isinstance(summary, Summary)
        return summary

    async def call(self, flow: Flow[Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Run a flow, and return what it returns."""
        if self.under_prefect:
            return await flow(*args, **kwargs)
        return await run_plainly(flow, self.hosts, *args, **kwargs)

    async def killed(self, at: Callable[[], bool], template: str = "note", **options: Any) -> str:
        """Run a template in its own process, kill that as soon as `at` is true, and return the run's id."""
        before = self.value("SELECT count(*) FROM runs")
        process = await self.process(template, **options)
        async with asyncio.timeout(120):
            await self.begun(before + 1)
            await until(at, pause_s=0.002)
        process.kill()
        await process.communicate()
        return str(self.value("SELECT max(id) FROM runs"))

    async def process(
        self, template: str = "note", *, first: str = "", environment: Mapping[str, str] | None = None, **options: Any
    ) -> Process:
        """Run a template in its own process, which runs the code `first` before.

        It is forked, unless it needs Prefect or an environment of its own from its start on.
        """
        code = RUN.format(first=first, template=template, options=options, under_prefect=self.under_prefect)
        if self.under_prefect or environment:
            return await _python(code, environment or {})
        return await fork_code(code, self.templates.parent)

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with self.ledger.connect() as connection:
            return [dict(row) for row in connection.execute(text(sql), values).mappings()]

    def value(self, sql: str, **values: Any) -> Any:
        (row,) = self.rows(sql, **values)
        (value,) = row.values()
        return value

    def counts(self, sql: str) -> dict[Any, int]:
        """Read a two-column result (a label and a count) as a mapping."""
        found = (tuple(row.values()) for row in self.rows(sql))
        return {row[0]: row[1] for row in found}

    def statuses(self, run_id: str) -> dict[str, int]:
        """Count a run's records by status: those in its history, and those without a change."""
        found = Counter(self.written(run_id))
        (again,) = self.rows(
            "SELECT sum(unchanged) AS succeeded, sum(failed_again) AS failed, sum(skipped_again) AS skipped "
            "FROM run_steps WHERE run_id = :id",
            id=run_id,
        )
        found.update({status: count for status, count in again.items() if count})
        return dict(found)

    def written(self, run_id: str) -> dict[str, int]:
        """Count a run's rows of history by status, without replaced ones."""
        counting = "SELECT status, count(*) AS n FROM generations WHERE run_id = :id AND replaced_by = '' GROUP BY 1"
        found = self.rows(counting, id=run_id)
        return {row["status"]: row["n"] for row in found}

    def outputs(self, step: str) -> dict[str, Any]:
        """Return the current content of a step by record key."""
        found = self.rows("SELECT record_key, output FROM current_content WHERE step = :step", step=step)
        return {
            row["record_key"]: json.loads(row["output"]) if isinstance(row["output"], str) else row["output"]
            for row in found
        }

    def flow_run_of(self, run_id: str) -> str:
        return str(self.value("SELECT prefect_flow_run_id FROM runs WHERE id = :id", id=run_id))

    async def task_states(self, run_id: str, count: int) -> list[str]:
        """Return the state names of a run's task runs, when Prefect's server has `count` of them."""
        if not self.under_prefect:
            return next(sorted(host.states) for host in self.hosts if host.summary and host.summary.run_id == run_id)
        found = await task_runs(self.flow_run_of(run_id), count=count)
        return sorted(str(run.state_name) for run in found)

    @property
    def billed_usd(self) -> Decimal:
        """The price of everything that the endpoint has generated, whether or not its answers arrived."""
        counted = [Usage(**{k: v for k, v in self.sandbox.stats()[of].items() if k != "answers"}) for of in BILLED]
        costs = [cost_of("claude-sonnet-4-6", usage, now().date()) for usage in counted]
        return sum((cost for cost in costs if cost is not None), Decimal(0))

    def has_billed(self, dollars: Decimal) -> bool:
        """Return whether the endpoint would bill at least this much by now."""
        return self.billed_usd >= dollars

    def has_answered(self, count: int) -> bool:
        """Return whether the sandbox has served at least `count` answers by now."""
        return bool(self.sandbox.stats()["served"]["answers"] >= count)

    @property
    def requests(self) -> int:
        """The number of message requests that have reached the sandbox."""
        return int(self.sandbox.stats()["requests"])

    async def asked(self, count: int) -> None:
        """Wait until `count` requests have reached the sandbox."""
        await until(lambda: self.requests >= count, pause_s=0.002)

    async def begun(self, runs: int) -> None:
        """Wait until this many runs have opened."""
        await until(lambda: self.value("SELECT count(*) FROM runs") >= runs, pause_s=0.02)

    async def answered(self, count: int) -> None:
        """Wait until the sandbox has served `count` answers."""
        await until(lambda: self.has_answered(count), pause_s=0.002)


async def _python(code: str, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE
    )


async def ended(process: Process) -> None:
    """Wait for the end of a process, which must succeed."""
    _printed, said = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, said.decode()[-3000:]


async def eventually(
    look: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool], *, within_s: float = 120
) -> Any:
    """Look until it is enough, because Prefect's server stores task runs a little after they end."""
    found = await look()
    waited = 0.0
    while not enough(found) and waited < within_s:
        await asyncio.sleep(0.2)
        waited += 0.2
        found = await look()
    return found


async def task_runs(flow_run_id: str, *, count: int) -> Sequence[TaskRun]:
    """Return the task runs of a flow run when Prefect's server has `count` of them, all ended."""

    async def look() -> list[TaskRun]:
        async with get_client() as client:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
            return await client.read_task_runs(flow_run_filter=wanted)

    def enough(found: list[TaskRun]) -> bool:
        return len(found) >= count and all(run.state is not None and run.state.is_final() for run in found)

    return list(await eventually(look, enough))


async def log_lines(flow_run_id: str) -> list[str]:
    """Return the log lines of a flow run that Prefect's server has."""
    async with get_client() as client:
        found = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(flow_run_id)])))
    return [line.message for line in found]
