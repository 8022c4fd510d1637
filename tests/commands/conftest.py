"""Give each test a desk with templates, a source and a ledger, and call the command in this process or as its own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from db.ledger.connecting import open_ledger
from presswork.cli import app
from sandbox import sandbox_process

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
    """The files that a command finds, and the sandbox's URL; `sent()` counts the requests that reached the sandbox."""

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

    @contextmanager
    def opened(self) -> Iterator[Engine]:
        """Open the desk's ledger for as long as the block lasts."""
        ledger = open_ledger(f"sqlite:///{self.ledger}")
        try:
            yield ledger
        finally:
            ledger.dispose()

    def sent(self) -> int:
        return int(json.loads(self.ask("GET", "stats"))["requests"])

    def switch(self, **switches: object) -> None:
        self.ask("PUT", "switches", json.dumps(switches).encode())

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return httpx2.request(method, f"{self.sandbox}/sandbox/{path}", content=body).raise_for_status().content

    def settings(self) -> dict[str, str]:
        """Return the environment in which a command finds this desk."""
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
    """Make a desk with one template, and reset the sandbox's counts."""
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
    set_all(monkeypatch, made.settings())
    yield made
    made.switch(latency_ms=0)


def set_all(patch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    """Set these variables in this process."""
    for name, value in environment.items():
        patch.setenv(name, value)


def call(*arguments: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def presswork(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a new process."""
    return subprocess.run(
        [str(PRESSWORK), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )


def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the command in a new process that Ctrl-C can end."""
    # A background job of a shell ignores Ctrl-C, and so do the processes that it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [str(PRESSWORK), *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def ended(command: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end, and return the exit status and the text on standard error."""
    try:
        _printed, said = command.communicate(timeout=60)
    finally:
        command.kill()
    return command.returncode, said


@contextmanager
def interrupted(at_work: Callable[[], object], number: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Send this process a signal as soon as `at_work()` is true; check that no thread of the block remains."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.05):
            if at_work():
                os.kill(os.getpid(), number)
                return

    threads = set(threading.enumerate())
    before = signal.signal(number, signal.default_int_handler)
    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        # A block that ended before is not interrupted afterwards.
        signal.signal(number, signal.SIG_IGN)
        over.set()
        sending.join()
        signal.signal(number, before)
    assert not [thread for thread in set(threading.enumerate()) - threads if not thread.daemon]


def first_answer(running: subprocess.Popen[str]) -> dict[str, Any]:
    """Read what a command that stays prints with --json: an object whose last line is a brace alone."""
    assert running.stdout is not None
    lines: list[str] = []
    for line in running.stdout:
        lines.append(line)
        if line == "}\n":
            found: dict[str, Any] = json.loads("".join(lines))
            return found
    raise AssertionError("it ended without an answer")
