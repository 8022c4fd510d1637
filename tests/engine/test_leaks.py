"""Prefect sees ids and counts, but no prompt, answer, API key or password; record keys only in failure artifacts."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prefect.settings import PREFECT_HOME, temporary_settings
from sqlalchemy import make_url

import db.ledger.writing
from db.database_errors import SourceUnreachableError
from tests.engine.workshop import Workshop, eventually, log_lines, task_runs

pytestmark = pytest.mark.prefect

KEY = "sk-ant-api03-mustneverbeseen"
PASSWORD = "hunter2mustneverbeseen"
PROMPT = "zanzibarite"
ANSWERED = "quokkaphone"


def stored(folder: Path) -> dict[str, bytes]:
    """Return all files of Prefect's server except its UI's pages: its database, write-ahead log and log."""
    pages = [path.parent for path in folder.rglob("index.html")]
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(path.is_relative_to(page) for page in pages)
    }


def tables_with(folder: Path, text: str) -> set[str]:
    """Return the tables of Prefect's database that contain a text."""
    found = set()
    with sqlite3.connect(folder / "prefect.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if any(text in str(row) for row in database.execute(f'SELECT * FROM "{table}"')):
                found.add(table)
    database.close()
    return found


async def settled(workshop: Workshop, run_id: str, chunks: int) -> None:
    """Wait until Prefect's server has stored a run's tasks and its last log line."""
    flow_run_id = workshop.flow_run_of(run_id)
    await task_runs(flow_run_id, count=chunks)
    await eventually(lambda: log_lines(flow_run_id), lambda found: any("Finished in state" in line for line in found))


async def test_neither_texts_nor_secrets_reach_prefect(
    workshop_on_each: Workshop, prefect_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    if workshop.ledger_url.startswith("postgresql"):
        # This PostgreSQL accepts any password; the test checks where it is written.
        with_password = make_url(workshop.ledger_url).set(password=PASSWORD)
        monkeypatch.setenv("PRESSWORK_DATABASE_URL", with_password.render_as_string(hide_password=False))
    workshop.template(f"{PROMPT} {{{{ (record.name * 1) | length }}}} {{{{ record.name }}}}")
    workshop.items({"good-key-1": f"Name: {ANSWERED}", "good-key-2": "other", "bad-key-3": None})
    workshop.sandbox.configure(keep_bodies=9)
    with temporary_settings({PREFECT_HOME: tmp_path / "home"}):
        summary = await workshop.run(chunk_size=1)
        await settled(workshop, summary.run_id, 2)
    assert (summary.succeeded, summary.failed) == (2, 1)

    # The texts are where they belong; otherwise this test would prove nothing.
    answers = [str(output["subject"]) for output in workshop.outputs("note").values()]
    assert any(ANSWERED in answer.lower() for answer in answers)
    assert any(PROMPT in str(body) for body in workshop.sandbox.bodies())
    for folder in (prefect_folder, tmp_path / "home"):
        for name, content in stored(folder).items():
            for text in (KEY, PASSWORD, PROMPT, ANSWERED, ANSWERED.title(), *answers):
                assert text.encode() not in content, f"{text} is in {name}"
            assert b"good-key" not in content, f"a record's key is in {name}"
    # Prefect's event about a new artifact contains the artifact, and is stored a little later.
    found = tables_with(prefect_folder, "bad-key-3")
    assert {"artifact"} <= found <= {"artifact", "artifact_collection", "events", "event_resources"}
    for table in ("attempts", "generations", "prompts", "runs"):
        assert KEY not in str(workshop.rows(f"SELECT * FROM {table}"))
        assert PASSWORD not in str(workshop.rows(f"SELECT * FROM {table}"))


async def test_failures_quote_no_text(
    workshop: Workshop, prefect_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUEST_RETRIES", "CHUNK_RETRIES", "REPAIRS", "ESCALATIONS"):
        monkeypatch.setenv(f"PRESSWORK_{name}", "0")
    workshop.items({f"{number:02}": f"Name: Pangolin {number}" for number in range(32)})
    workshop.sandbox.configure(invalid=0.2, malformed=0.2, refused=0.2, truncated=0.2, overloaded=0.2)
    summary = await workshop.run()
    assert set(workshop.statuses(summary.run_id)) == {"invalid", "refused", "truncated", "failed"}
    await settled(workshop, summary.run_id, 32)

    assert "Pangolin" not in str(workshop.rows("SELECT error_kind, error_message FROM generations"))
    assert "Pangolin" not in str(workshop.rows("SELECT validation_errors, error_type FROM attempts"))
    assert "Pangolin" not in str(summary)
    for name, content in stored(prefect_folder).items():
        assert b"Pangolin" not in content, f"the record's text is in {name}"


async def test_database_error_quotes_no_row(
    workshop: Workshop, prefect_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.items({"1": "Name: Numbatology"})

    write = db.ledger.writing.write

    def write_spoilt(engine: Any, batch: Any, *lease: Any, **refused: Any) -> None:
        batch.generations = [replace(row, status="nonsense") for row in batch.generations]
        write(engine, batch, *lease, **refused)

    monkeypatch.setattr("presswork.engine.resources.lease.write", write_spoilt)
    (failure,) = (await workshop.run()).failures
    assert (failure.kind, "ck_generations_status" in str(failure.message)) == ("refused_by_ledger", True)
    assert "Numbatology" not in str(failure.message)
    await settled(workshop, str(workshop.value("SELECT id FROM runs")), 1)
    for name, content in stored(prefect_folder).items():
        assert b"Numbatology" not in content, f"the record's text is in {name}"


async def test_source_that_is_away_is_named_without_its_password(
    workshop: Workshop, prefect_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_SOURCE_URL", f"postgresql://someone:{PASSWORD}@127.0.0.1:1/nowhere")
    with pytest.raises(SourceUnreachableError, match=r"127\.0\.0\.1") as caught:
        await workshop.run()
    assert PASSWORD not in str(caught.value)
    await settled(workshop, str(workshop.value("SELECT id FROM runs")), 0)
    for name, content in stored(prefect_folder).items():
        assert PASSWORD.encode() not in content, f"the password is in {name}"


async def test_key_in_a_gateways_error_is_not_kept(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def quote(request: web.Request) -> web.Response:
        message = f"we do not know {request.headers['authorization']}"
        error = {"type": "invalid_request_error", "message": message}
        return web.json_response({"type": "error", "error": error}, status=400)

    app = web.Application()
    app.router.add_post("/v1/messages", quote)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")
    workshop.numbered(1)
    summary = await workshop.run()
    await runner.cleanup()
    assert summary.failed == 1
    assert KEY not in str(workshop.rows("SELECT * FROM generations"))
    assert KEY not in str(summary)
