"""A select that takes for ever does not keep the command from ending when it is told to."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.commands.conftest import FRONT, PRESSWORK, Desk

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    # A job in a shell's background ignores Ctrl-C, and hands that on to what it starts.
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
    """Wait for the end, and return the exit status and what was said."""
    try:
        _printed, said = command.communicate(timeout=60)
    finally:
        command.kill()
    return command.returncode, said


def open_files(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(str(descriptor.readlink()))
    return found


def has_begun(desk: Desk) -> bool:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{desk.ledger}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT count(*) FROM runs").fetchone()[0])
    return False


def test_ctrl_c_ends_the_reading_of_one_record(desk: Desk) -> None:
    desk.notes({1: "one"})
    desk.template(front=FRONT.replace("FROM notes", f"FROM notes WHERE ({ENDLESS}) > 0"))
    command = begin("templates", "show", "notes", "--key", "1")
    while str(desk.folder / "source.sqlite") not in open_files(command.pid):
        time.sleep(0.05)
    time.sleep(0.5)
    command.send_signal(signal.SIGINT)
    assert ended(command) == (130, "Stopped by Ctrl-C.\n")


@pytest.mark.prefect
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signal_ends_a_run_that_reads_its_records(desk: Desk, prefect_server: str, number: signal.Signals) -> None:
    desk.notes({1: "one"})
    # The check before the run executes nothing.
    desk.template(front=FRONT.replace("id, text FROM", f"id, text, ({ENDLESS}) AS slow FROM"))
    command = begin("run", "notes", PREFECT_API_URL=prefect_server)
    while not has_begun(desk):
        time.sleep(0.05)
    time.sleep(1)
    command.send_signal(number)
    status, said = ended(command)
    assert (status, f"({number.name})" in said) == (130, True), said
    assert desk.sent() == 0


@pytest.mark.prefect
@pytest.mark.mariadb
def test_ctrl_c_ends_a_statement_of_mariadb_that_has_given_no_row(
    desk: Desk, prefect_server: str, mariadb_server: str
) -> None:
    endless = "SELECT COUNT(*) FROM seq_1_to_1000000 a, seq_1_to_1000000 b WHERE (a.seq + b.seq) MOD 7 = 3"
    # From a table: MariaDB computes a constant row while it plans, before the run.
    select = f"SELECT help_topic_id AS id, ({endless}) AS text FROM help_topic"
    desk.template(front=FRONT.replace("SELECT id, text FROM notes", select))
    engine = create_engine(mariadb_server)

    def at_work() -> int:
        with engine.connect() as connection:
            found = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT help_topic_id%'"
            return int(connection.scalar(text(found)) or 0)

    for arguments in (["run", "notes"], ["templates", "show", "notes", "--key", "1"]):
        command = begin(*arguments, PREFECT_API_URL=prefect_server, PRESSWORK_SOURCE_URL=mariadb_server)
        while not at_work() and command.poll() is None:
            time.sleep(0.05)
        command.send_signal(signal.SIGINT)
        status, said = ended(command)
        assert status == 130, said
        # The server's thread ends a moment after the client's.
        deadline = time.monotonic() + 10
        while at_work() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert at_work() == 0
    engine.dispose()
