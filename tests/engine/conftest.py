"""A workshop for each test: a sandbox in the test's own loop, a ledger, a source, templates, and Prefect's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from sqlalchemy import Engine, create_engine, text

from db.samples import load_samples
from db.session import open_ledger
from flows.content import content
from flows.engine import RunOptions, Summary
from flows.engine.limiter import _limiters
from flows.sandbox import Sandbox
from tests.conftest import new_postgres_database

NOTE = """---
select: SELECT id, name FROM items
key: id
output: SubjectLine
max_tokens: {max_tokens}
---
{{% block system %}}You write subject lines.{{% endblock %}}
{{% block user %}}{user}{{% endblock %}}
"""
USER = "A line about {{ record.name }}."
QUICK = {
    "RETRY_WAIT_MAX_S": "0.01",
    "RETRY_AFTER_CAP_S": "0.01",
    "CHUNK_RETRY_DELAY_S": "0",
    "COMMIT_INTERVAL_S": "0.005",
    "DATABASE_PATIENCE_S": "5",
    "STOP_WAIT_S": "2",
}
"""Settings under which trouble is over soon."""


@dataclass
class Workshop:
    """All that a run needs; `run()` makes one, the rest looks at what it left."""

    sandbox: Sandbox
    ledger_url: str
    source_url: str
    templates: Path
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
        """Put records with these keys and names into the source, where the note's template reads them."""
        with self.source.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS items (id VARCHAR(50) PRIMARY KEY, name TEXT)"))
            connection.execute(
                text("INSERT INTO items VALUES (:id, :name)"),
                [{"id": key, "name": name} for key, name in items.items()],
            )

    def numbered(self, count: int) -> None:
        self.items({f"{number:05}": f"item {number}" for number in range(count)})

    def template(self, user: str = USER, *, name: str = "note", max_tokens: int = 256) -> None:
        (self.templates / f"{name}.md.j2").write_text(NOTE.format(user=user, max_tokens=max_tokens), encoding="utf-8")

    async def run(self, template: str = "note", **options: Any) -> Summary:
        """Run a template as a job, and return its summary."""
        summary = await content(template, options=RunOptions(**options))
        assert isinstance(summary, Summary)
        return summary

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with self.ledger.connect() as connection:
            return [dict(row) for row in connection.execute(text(sql), values).mappings()]

    def value(self, sql: str, **values: Any) -> Any:
        (row,) = self.rows(sql, **values)
        (value,) = row.values()
        return value

    def counts(self, sql: str) -> dict[Any, int]:
        """Read a two-column result (a label and a count) as a mapping."""
        return {label: count for label, count in (row.values() for row in self.rows(sql))}

    def statuses(self, run_id: str) -> dict[str, int]:
        found = self.rows("SELECT status, count(*) AS n FROM generations WHERE run_id = :id GROUP BY 1", id=run_id)
        return {row["status"]: row["n"] for row in found}

    @property
    def requests(self) -> int:
        """Requests for a message that have reached the sandbox."""
        return int(self.sandbox.stats()["requests"])


@pytest.fixture(autouse=True)
def no_limiter_of_an_earlier_loop() -> None:
    _limiters.clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(f"PRESSWORK_{name}", value)
    monkeypatch.setenv("PRESSWORK_SPILL_DIR", str(tmp_path / "spill"))


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        yield running


def _workshop(
    sandbox: Sandbox, ledger_url: str, source_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workshop:
    templates = tmp_path / "templates"
    templates.mkdir()
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", ledger_url)
    monkeypatch.setenv("PRESSWORK_SOURCE_URL", source_url)
    monkeypatch.setenv("PRESSWORK_TEMPLATES_DIR", str(templates))
    made = Workshop(sandbox, ledger_url, source_url, templates)
    made.template()
    return made


@pytest.fixture
def workshop(
    prefect_api: str,
    quick: None,
    sandbox: Sandbox,
    sqlite_ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Workshop]:
    """A workshop on SQLite, for what does not depend on the database."""
    made = _workshop(sandbox, sqlite_ledger_url, f"sqlite:///{tmp_path / 'source.sqlite'}", tmp_path, monkeypatch)
    with closing(_Disposing(made)):
        yield made


@pytest.fixture
def workshop_on_each(
    prefect_api: str,
    quick: None,
    sandbox: Sandbox,
    ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Workshop]:
    """A workshop on SQLite and one on PostgreSQL; source and ledger are two databases of the same kind."""
    source = f"sqlite:///{tmp_path / 'source.sqlite'}"
    if ledger_url.startswith("postgresql"):
        source = new_postgres_database(request.getfixturevalue("postgres_server"))
    made = _workshop(sandbox, ledger_url, source, tmp_path, monkeypatch)
    with closing(_Disposing(made)):
        yield made


@dataclass
class _Disposing:
    made: Workshop

    def close(self) -> None:
        self.made.dispose()


@pytest.fixture
def shop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop whose source holds the samples, and whose templates are those that come with Presswork."""
    load_samples(workshop.source)
    monkeypatch.delenv("PRESSWORK_TEMPLATES_DIR")
    return workshop


async def eventually(
    look: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool], *, within_s: float = 20
) -> Any:
    """Look until it is enough: Prefect's server hears of task runs a little after they end."""
    found = await look()
    waited = 0.0
    while not enough(found) and waited < within_s:
        await asyncio.sleep(0.2)
        waited += 0.2
        found = await look()
    return found


async def task_runs(flow_run_id: str, *, count: int) -> Sequence[TaskRun]:
    """Return the task runs of a flow run when Prefect's server knows that many, all ended."""

    async def look() -> list[TaskRun]:
        async with get_client() as client:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
            return await client.read_task_runs(flow_run_filter=wanted)

    def enough(found: list[TaskRun]) -> bool:
        return len(found) >= count and all(run.state is not None and run.state.is_final() for run in found)

    return list(await eventually(look, enough))
