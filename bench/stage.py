"""Start the sandbox, Prefect's server, PostgreSQL and the data for measurements, in a temporary folder."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import create_engine, make_url, text

from bench.material import TEMPLATE, write_source, write_templates
from bench.meter import Sample, child_running
from bench.postgres import own_postgres
from db.ledger.connecting import connect_ledger, upgrade
from presswork.operate.command_server.server_context import own_server
from presswork.operate.prefect_server import QUIET
from presswork.settings import ROOT
from sandbox import Switches, sandbox_process

CLIENT_LIMIT_S = 7200
"""A run of a million records takes half an hour."""
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
"""The variables that clients inherit. No setting of an installation may change a measurement."""
MODULES = {"again": "content", "cursor": "spool"}
"""The modules of clients by kind; the other kinds have the names of their modules."""


class ClientError(RuntimeError):
    """A measurement failed."""


@dataclass
class Stage:
    """The servers and data of measurements: `start()` begins a measurement, and `finish()` returns its sample."""

    folder: Path
    sandbox_url: str
    sandbox_pid: int
    server_url: str
    server_pid: int
    concurrency: int
    _stack: ExitStack
    made: dict[str, str] = field(default_factory=dict)
    """The URLs of databases that several rows use, by their content."""
    _postgres: str | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def set_sandbox(self, **switches: float) -> None:
        """Set these switches of the sandbox and the defaults of the others, and set its counts to zero."""
        wanted = Switches().changed(dict(switches))
        self._sandbox("PUT", "switches", wanted.model_dump())
        self._sandbox("POST", "reset")

    def change_sandbox(self, **switches: float) -> None:
        """Change switches of the sandbox while a client runs."""
        self._sandbox("PUT", "switches", switches)

    def sandbox_stats(self) -> dict[str, Any]:
        """Return the counts of the sandbox since then."""
        return self._sandbox("GET", "stats")

    def new_sqlite(self) -> str:
        """Return the URL of a SQLite ledger that does not exist yet."""
        return f"sqlite:///{self.folder / f'ledger-{next(self._numbers)}.sqlite'}"

    def new_postgres(self) -> str:
        """Make a ledger on PostgreSQL, and return its URL."""
        url = self.new_database()
        ledger = connect_ledger(url)
        upgrade(ledger)
        ledger.dispose()
        return url

    def new_database(self) -> str:
        """Make an empty database on PostgreSQL, and return its URL.

        The first call starts the server, with its default settings: it syncs commits.
        """
        if self._postgres is None:
            self._postgres = self._stack.enter_context(own_postgres("presswork-bench-postgres-"))
        name = f"bench_{next(self._numbers)}"
        _execute(self._postgres, f"CREATE DATABASE {name}")
        return make_url(self._postgres).set(database=name).render_as_string(hide_password=False)

    def source(self, records: int) -> Path:
        """Return the path of a database with this many items."""
        file = self.folder / f"source-{records}.sqlite"
        if not file.exists():
            write_source(file, records)
        return file

    def measure(self, kind: str, records: int, ledger: str | None = None, template: str = TEMPLATE) -> Sample:
        """Make one measurement."""
        return self.finish(self.start(kind, records, ledger, template))

    def start(
        self,
        kind: str,
        records: int,
        ledger: str | None = None,
        template: str = TEMPLATE,
        *,
        source_url: str | None = None,
        runs: int = 1,
    ) -> subprocess.Popen[str]:
        """Start a client, which reads a database with this many items, or the one at `source_url`."""
        source = self.source(records) if source_url is None else Path()
        command = [
            sys.executable,
            "-m",
            f"bench.clients.{MODULES.get(kind, kind)}",
            kind,
            "--records",
            str(records),
            "--source",
            str(source),
        ]
        command += ["--template", template, "--runs", str(runs)]
        command += ["--concurrency", str(self.concurrency), "--watch", f"sandbox={self.sandbox_pid}"]
        if kind == "content":
            command.append(f"server={self.server_pid}")
        environment = self.environment(source_url or f"sqlite:///{source}", ledger)
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    def finish(self, client: subprocess.Popen[str]) -> Sample:
        """Wait for a client, and return its sample."""
        try:
            printed, _ = client.communicate(timeout=CLIENT_LIMIT_S)
        except BaseException:
            client.kill()
            raise
        if client.returncode != 0:
            raise ClientError(f"a client ended with status {client.returncode}; its error is above")
        return Sample(**json.loads(printed.splitlines()[-1]))

    def environment(self, source_url: str, ledger: str | None) -> Mapping[str, str]:
        """Return the environment of a client."""
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return {
            **kept,
            **QUIET,
            "PYTHON_DOTENV_DISABLED": "1",
            "ANTHROPIC_BASE_URL": self.sandbox_url,
            "ANTHROPIC_API_KEY": "bench",
            "PREFECT_API_URL": self.server_url,
            "PREFECT_HOME": str(self.folder / "prefect-home"),
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
            "PRESSWORK_DATABASE_URL": ledger or "",
            "PRESSWORK_SOURCE_URL": source_url,
            "PRESSWORK_TEMPLATES_DIR": str(self.folder),
            "PRESSWORK_SPILL_DIR": str(self.folder / "spill"),
            "PRESSWORK_SPOOL_DIR": str(self.folder / "spools"),
        }

    def _sandbox(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = httpx2.request(method, f"{self.sandbox_url}/sandbox/{path}", json=body, timeout=10)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


@contextmanager
def open_stage(concurrency: int) -> Iterator[Stage]:
    """Start all servers, and stop them after the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="presswork-bench-")))
        write_templates(folder)
        sandbox = stack.enter_context(sandbox_process())
        server = stack.enter_context(own_server(timeout_s=180, home=folder / "server"))
        yield Stage(
            folder,
            sandbox,
            child_running("sandbox"),
            server,
            child_running("presswork.operate.server_process"),
            concurrency,
            stack,
        )


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
