"""What commands load before they do their work, by number, so that nothing that takes seconds comes back unseen."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.commands.conftest import Desk
from tests.db.rows import Book

READS_THE_LEDGER = 620
READS_TEMPLATES = 440
CHECKS_TEMPLATES = 530
ASKS_PREFECT = 1350
NO_RUN = {"prefect", "anthropic", "aiohttp", "alembic", "sqlalchemy.orm", "pydantic_settings", "starlette", "uvicorn"}
"""What only a run, a server or a migration needs, and what takes the place of less."""
NO_TEMPLATE = NO_RUN | {"jinja2", "sqlglot", "yaml", "httpx2"}
NO_DATABASE = NO_RUN | {"sqlalchemy", "asyncio", "httpx2"}
LEDGER_COMMANDS = (
    "history",
    "history --generations",
    "history product_copy --key a",
    "history RUN",
    "show ID --json",
    "diff ID ID",
    "cost",
    "search subject",
    "db check",
    "db size",
    "templates history",
    "export --to -",
    "audit bundle --key a --to FILE",
)


def loaded_by(command: str, status: int = 0) -> set[str]:
    """Run a command in a process of its own, and return the modules that are loaded when it ends."""
    program = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr))\n"
        f"sys.argv[1:] = {command.split()!r}\n"
        "from presswork.cli import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == status, ended.stderr[:1000]
    return set(json.loads(ended.stderr.splitlines()[-1]))


@pytest.mark.parametrize("command", LEDGER_COMMANDS)
def test_reading_the_ledger_loads_little(desk: Desk, command: str) -> None:
    with desk.opened() as ledger:
        book = Book(ledger)
        generation = book.add("a", output={"subject": "A subject"})
    words = {"ID": generation, "RUN": book.run_id, "FILE": str(desk.folder / "bundle.json")}

    found = loaded_by(" ".join(words.get(word, word) for word in command.split()))

    assert found & NO_TEMPLATE == set()
    assert len(found) <= READS_THE_LEDGER


def test_listing_templates_loads_no_database(desk: Desk) -> None:
    found = loaded_by("templates list")

    assert found & (NO_DATABASE | {"sqlglot"}) == set()
    assert len(found) <= READS_TEMPLATES


def test_second_lint_loads_no_sdk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_STATE_DIR", str(desk.folder / "state"))
    assert "anthropic" in loaded_by("templates lint")

    found = loaded_by("templates lint")

    assert found & NO_DATABASE == set()
    assert len(found) <= CHECKS_TEMPLATES


def test_status_loads_no_sdk_if_there_is_no_endpoint_to_ask(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_STATE_DIR", str(desk.folder / "state"))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "")

    found = loaded_by("status", status=1)  # no server was started

    assert found & {"anthropic", "aiohttp", "alembic", "sqlalchemy", "sqlglot"} == set()
    assert len(found) <= ASKS_PREFECT
