"""A desk for each test: templates, a source and a ledger of its own, and the command, in this process or as itself."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.sandbox import sandbox_process

PRESSWORK = Path(sys.executable).with_name("presswork")
FRONT = """---
select: SELECT id, text FROM notes
key: id
output: SubjectLine
max_tokens: 256
---
"""
BLOCKS = "{% block system %}You write subject lines.{% endblock %}\n{% block user %}{{ record.text }}{% endblock %}\n"


@dataclass
class Desk:
    """What a command finds: files, and the sandbox's URL; `sent()` says how many requests have reached it."""

    folder: Path
    sandbox: str

    @property
    def templates(self) -> Path:
        return self.folder / "templates"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.sqlite"

    def template(self, name: str = "notes", front: str = FRONT, blocks: str = BLOCKS) -> None:
        (self.templates / f"{name}.md.j2").write_text(front + blocks, encoding="utf-8")

    def notes(self, rows: Mapping[Any, str | None], key: str = "id") -> None:
        with closing(sqlite3.connect(self.folder / "source.sqlite")) as connection:
            connection.execute(f"CREATE TABLE notes ({key}, text)")
            connection.executemany("INSERT INTO notes VALUES (?, ?)", list(rows.items()))
            connection.commit()

    def sent(self) -> int:
        return int(json.loads(self.ask("GET", "stats"))["requests"])

    def switch(self, **switches: object) -> None:
        self.ask("PUT", "switches", json.dumps(switches).encode())

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.sandbox}/sandbox/{path}", data=body, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            return bytes(answer.read())

    def settings(self) -> dict[str, str]:
        """The environment in which a command finds this desk."""
        return {
            "ANTHROPIC_BASE_URL": self.sandbox,
            "ANTHROPIC_API_KEY": "",
            "PRESSWORK_DATABASE_URL": f"sqlite:///{self.ledger}",
            "PRESSWORK_SOURCE_URL": f"sqlite:///{self.folder / 'source.sqlite'}",
            "PRESSWORK_TEMPLATES_DIR": str(self.templates),
            "PRESSWORK_SPILL_DIR": str(self.folder / "spill"),
            "PRESSWORK_SPOOL_DIR": str(self.folder / "spools"),
        }


def make_desk(folder: Path, sandbox: str) -> Desk:
    """Lay out a desk: one template, a sandbox that has counted nothing."""
    made = Desk(folder, sandbox)
    made.templates.mkdir()
    made.template()
    made.ask("POST", "reset")
    return made


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    with sandbox_process() as url:
        yield url


@pytest.fixture
def desk(sandbox_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = make_desk(tmp_path, sandbox_url)
    for name, value in made.settings().items():
        monkeypatch.setenv(name, value)
    yield made
    made.switch(latency_ms=0)


def call(*arguments: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def presswork(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as itself."""
    return subprocess.run(
        [str(PRESSWORK), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
