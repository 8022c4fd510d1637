"""Give each test a workshop: a sandbox in the test's own loop, a ledger, a source and templates.

In a test marked `prefect`, the workshop's flows run under Prefect on the session's server; in others without both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from db.samples import load_samples
from sandbox import Sandbox
from tests.conftest import new_postgres_database
from tests.engine.workshop import Workshop

QUICK = {
    "RETRY_WAIT_MAX_S": "0.01",
    "RETRY_AFTER_CAP_S": "0.01",
    "CHUNK_RETRY_DELAY_S": "0",
    "COMMIT_INTERVAL_S": "0.005",
    "DATABASE_PATIENCE_S": "5",
    "STOP_WAIT_S": "2",
}
"""Settings with short waits and few retries."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(f"PRESSWORK_{name}", value)
    monkeypatch.setenv("PRESSWORK_SPILL_DIR", str(tmp_path / "spill"))
    monkeypatch.setenv("PRESSWORK_SPOOL_DIR", str(tmp_path / "spools"))


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        yield running


def open_workshop(
    sandbox: Sandbox,
    ledger_url: str,
    source_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Workshop:
    """Make a workshop; a test marked `prefect` runs its flows under Prefect."""
    under_prefect = request.node.get_closest_marker("prefect") is not None
    if under_prefect:
        request.getfixturevalue("prefect_api")
    templates = tmp_path / "templates"
    templates.mkdir()
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", ledger_url)
    monkeypatch.setenv("PRESSWORK_SOURCE_URL", source_url)
    monkeypatch.setenv("PRESSWORK_TEMPLATES_DIR", str(templates))
    made = Workshop(sandbox, ledger_url, source_url, templates, under_prefect)
    made.template()
    return made


@pytest.fixture
def workshop(
    quick: None,
    sandbox: Sandbox,
    new_sqlite_ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Workshop]:
    """A workshop on SQLite, for tests that do not depend on the database."""
    source = f"sqlite:///{tmp_path / 'source.sqlite'}"
    made = open_workshop(sandbox, new_sqlite_ledger_url, source, tmp_path, monkeypatch, request)
    yield made
    made.dispose()


@pytest.fixture
def workshop_on_each(
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
    made = open_workshop(sandbox, ledger_url, source, tmp_path, monkeypatch, request)
    yield made
    made.dispose()


@pytest.fixture
def shop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop whose source holds the samples, with Presswork's own templates."""
    load_samples(workshop.source)
    monkeypatch.delenv("PRESSWORK_TEMPLATES_DIR")
    return workshop
