"""Ledgers that earlier commits made (tests/db/earlier) migrate, and the killed run in each one is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from db.ledger.connecting import connect_ledger, upgrade
from flows.content import content
from presswork import RunOptions, Summary
from presswork.cli import app
from presswork.engine.orchestration.host import HOST, Host
from sandbox import Sandbox
from tests.conftest import drop_postgres_database, new_postgres_database
from tests.db.earlier.ledgers import FOLDER, EarlierLedger, earlier_files, read_earlier, views_of
from tests.engine.conftest import open_workshop
from tests.engine.plain_host import PlainHost
from tests.engine.workshop import Workshop

ANSWERED = "SELECT DISTINCT prompt_hash FROM generations WHERE status = 'succeeded' AND origin = 'live'"
FILES = [
    pytest.param(file, id=file.stem, marks=[pytest.mark.postgres] if "postgresql" in file.stem else [])
    for file in earlier_files()
]


@pytest.fixture(params=FILES)
def earlier(request: pytest.FixtureRequest) -> EarlierLedger:
    """A ledger of an earlier commit, and the expected figures."""
    return read_earlier(request.param)


@pytest.fixture
def earlier_url(earlier: EarlierLedger, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of that ledger, not migrated."""
    if isinstance(earlier.ledger, list):
        url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        earlier.put(url)
        yield url
        return
    server: str = request.getfixturevalue("postgres_server")
    url = new_postgres_database(server)
    earlier.put(url)
    yield url
    drop_postgres_database(server, url)


@pytest.fixture
def workshop(
    quick: None,
    sandbox: Sandbox,
    earlier: EarlierLedger,
    earlier_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Workshop]:
    """A workshop with that ledger, migrated, and the records that its runs worked on."""
    engine = connect_ledger(earlier_url)
    upgrade(engine)
    engine.dispose()
    made = open_workshop(
        sandbox, earlier_url, f"sqlite:///{tmp_path / 'source.sqlite'}", tmp_path, monkeypatch, request
    )
    monkeypatch.setenv("PRESSWORK_TEMPLATES_DIR", str(FOLDER))
    with made.source.begin() as connection:
        connection.execute(text("CREATE TABLE items (id TEXT PRIMARY KEY, name TEXT, look TEXT)"))
        for key, name, look in earlier.items:
            connection.execute(text("INSERT INTO items VALUES (:a, :b, :c)"), {"a": key, "b": name, "c": look})
    yield made
    made.dispose()


def test_ledger_of_an_earlier_commit_keeps_its_views_and_figures(
    earlier: EarlierLedger, earlier_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect_ledger(earlier_url)
    before = views_of(engine)
    upgrade(engine)
    assert views_of(engine) == before
    engine.dispose()
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", earlier_url)
    for run, said in earlier.history.items():
        # The lease of the killed run has expired since.
        since = {"status": "crashed", "alive_until": history(run)["alive_until"]} if run == earlier.killed else {}
        assert of_names_in(said, history(run)) == {**said, **since}


def of_names_in(said: Any, told: Any) -> Any:
    """Return today's result without the names that the earlier result does not have."""
    if isinstance(said, dict):
        return {name: of_names_in(value, told[name]) for name, value in said.items()}
    if isinstance(said, list) and len(said) == len(told):
        return [of_names_in(*pair) for pair in zip(said, told, strict=True)]
    return told


def history(run: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["history", run, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("how", ["new run", "same flow run"])
async def test_run_that_was_killed_by_an_earlier_commit_is_resumed(
    workshop: Workshop, earlier: EarlierLedger, how: str
) -> None:
    ledger = workshop.ledger
    flow_run = workshop.flow_run_of(earlier.killed)
    with ledger.connect() as connection:
        answered = set(connection.scalars(text(ANSWERED)))
        attempts = set(connection.scalars(text("SELECT id FROM attempts")))
    content_before = workshop.value("SELECT count(*) FROM current_content WHERE step = 'note'")
    options = RunOptions(concurrency=4, chunk_size=4, resumes=earlier.killed if how == "new run" else None)

    summary = await resume(flow_run if how == "same flow run" else "another", options)

    assert (summary.run_id == earlier.killed) == (how == "same flow run")
    # All except the record that can't be rendered.
    assert (summary.records, summary.failed) == (len(earlier.items), 1)
    assert summary.cached + summary.succeeded == summary.records - 1
    assert workshop.requests == len(earlier.items) - 1 - content_before
    asked_now = [row for row in workshop.rows("SELECT id, prompt_hash FROM attempts") if row["id"] not in attempts]
    assert len(asked_now) == workshop.requests > 0
    assert not answered & {row["prompt_hash"] for row in asked_now}
    assert workshop.value("SELECT count(*) FROM current_content WHERE step = 'note'") == summary.records - 1
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    for leftover in ("claims", "leases", "working_rows"):
        assert workshop.value(f"SELECT count(*) FROM {leftover}") == 0
    status = workshop.value("SELECT status FROM runs WHERE id = :id", id=earlier.killed)
    assert status == ("completed" if how == "same flow run" else "crashed")


async def resume(flow_run: str, options: RunOptions) -> Summary:
    """Run the template under a flow run of this id, as Prefect's Retry does."""
    token = HOST.set(cast("Host", PlainHost(content, {"template": "note"}, flow_run)))
    try:
        summary: Summary = await cast("Any", content.fn)("note", options=options)
        return summary
    finally:
        HOST.reset(token)
