"""The ledger becomes unavailable, full or read-only: answers stay in memory, then in a file, and are imported once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import Abort
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from db.database_errors import LedgerUnreachableError
from db.ledger.connecting import open_ledger
from db.ledger.rows import WriteBatch
from db.ledger.spill import find_spills, keep_batch
from flows.support_replies import support_replies
from presswork.engine.resources.run_ledger import recover_crashed_runs
from presswork.errors import LedgerAwayError
from presswork.report.progress import watch
from presswork.settings import load_settings
from tests.db.rows import error_of_sqlite
from tests.engine.workshop import Workshop
from tests.waiting import until

RECORDS = 60
ALL_OPEN: dict[str, Any] = {"concurrency": 20, "chunk_size": 5}
"""Options by which all records are claimed at the start, so that a later failure is a write of answers."""
Way = Callable[[Workshop], AbstractContextManager[None]]


on_postgres = pytest.mark.parametrize(
    "ledger_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run's lease expire soon: a run that could not write its end seems active while the test's process lives."""
    monkeypatch.setattr("db.ledger.leases.LEASE_S", 4)
    monkeypatch.setattr("db.ledger.leases.HEARTBEAT_S", 1.0)


def execute(workshop: Workshop, statement: str) -> None:
    # Through another database, because the ledger itself may be read-only.
    engine = create_engine(workshop.ledger.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@contextmanager
def database_away(workshop: Workshop) -> Iterator[None]:
    """Make the ledger's server hang: pause its process and those of its connections."""
    folder = Path(workshop.value("SHOW data_directory"))
    workshop.ledger.dispose()
    leader = int((folder / "postmaster.pid").read_text().splitlines()[0])
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(leader)], capture_output=True, text=True, check=True)
    paused = [leader, *map(int, found.stdout.split())]
    for process in paused:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(paused):
            os.kill(process, signal.SIGCONT)


@contextmanager
def database_shut(workshop: Workshop) -> Iterator[None]:
    """Shut the ledger's database: end all connections and allow no new one."""
    name = workshop.ledger.url.database
    workshop.ledger.dispose()
    maintenance = create_engine(workshop.ledger.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with maintenance.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
            connection.close()
            maintenance.dispose()


def assert_all_once(workshop: Workshop) -> None:
    assert workshop.value("SELECT count(*) FROM current_content") == RECORDS
    assert workshop.sandbox.stats()["repeated_bodies"] == 0
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0


async def assert_goes_on(workshop: Workshop, answered: int) -> None:
    """Assert that spilled rows are imported once, and that the next run requests only the other records."""
    recover_crashed_runs(workshop.ledger, load_settings().spill_folders, but="")
    assert find_spills(load_settings().spill_dir) == []
    assert workshop.value("SELECT count(*) FROM current_content") == answered
    workshop.sandbox.configure(latency_ms=0)
    summary = await workshop.run()
    assert (summary.cached, summary.succeeded, summary.exit_status) == (answered, RECORDS - answered, 0)
    assert workshop.requests == RECORDS
    assert workshop.sandbox.stats()["repeated_bodies"] == 0
    assert workshop.value("SELECT count(*) FROM current_content") == RECORDS


@on_postgres
@pytest.mark.parametrize("away_s", [2.5, pytest.param(60, marks=pytest.mark.soak)], ids=["seconds", "a minute"])
@pytest.mark.parametrize("way", [database_shut, database_away], ids=["shut", "hanging"])
async def test_answers_wait_in_memory_for_a_database_that_comes_back(
    workshop_on_each: Workshop, way: Way, away_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "120")
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=200)
    running = asyncio.create_task(workshop.run(concurrency=6, chunk_size=5))
    await workshop.answered(12)
    with way(workshop):
        await asyncio.sleep(away_s)
        # Requests stop while nothing can be written.
        assert workshop.requests < RECORDS
    summary = await running

    assert (summary.succeeded, summary.exit_status) == (RECORDS, 0)
    assert workshop.requests == RECORDS
    assert find_spills(load_settings().spill_dir) == []
    assert_all_once(workshop)


@on_postgres
async def test_answers_spill_when_patience_ends_and_the_next_run_writes_them_in_once(
    workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "1")
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=400)
    running = asyncio.create_task(workshop.run(**ALL_OPEN))
    await workshop.answered(12)
    with database_shut(workshop), pytest.raises(LedgerAwayError, match="presswork db recover") as away:
        await running
    answered = workshop.sandbox.stats()["served"]["answers"]
    (spill,) = find_spills(load_settings().spill_dir)
    assert str(spill) in str(away.value)

    await assert_goes_on(workshop, answered)
    # An attempt that was written but never sent does not count as perhaps billed.
    assert workshop.value("SELECT sum(perhaps_billed) FROM usage_by_day") == 0


@on_postgres
async def test_ledger_that_becomes_read_only_loses_nothing(
    workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "0.5")
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=200)
    name = workshop.ledger.url.database
    running = asyncio.create_task(workshop.run(concurrency=6, chunk_size=5))
    await workshop.answered(12)
    execute(workshop, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    execute(
        workshop,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()",
    )
    try:
        with pytest.raises(LedgerAwayError, match="read-only"):
            await running
        with pytest.raises(LedgerUnreachableError, match="can't be written"):
            await workshop.run()
    finally:
        execute(workshop, f"ALTER DATABASE {name} RESET ALL")
    workshop.ledger.dispose()
    await assert_goes_on(workshop, workshop.sandbox.stats()["served"]["answers"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill_up(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as open_file:
        while True:
            open_file.write(b"\0" * 4096)


async def test_disk_that_fills_up_loses_nothing(
    workshop: Workshop, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "0.5")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "elsewhere"))
    workshop.ledger_url = f"sqlite:///{small_disk / 'ledger.sqlite'}"
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", workshop.ledger_url)
    # The spill folder is on the same disk, as by default.
    monkeypatch.setenv("PRESSWORK_SPILL_DIR", str(small_disk / "spill"))
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=400)
    running = asyncio.create_task(workshop.run(**ALL_OPEN))
    await workshop.answered(12)
    fill_up(small_disk / "filler")
    with pytest.raises(LedgerAwayError, match="full") as away:
        await running
    assert str(tmp_path / "elsewhere") in str(away.value)
    (small_disk / "filler").unlink()
    await assert_goes_on(workshop, workshop.sandbox.stats()["served"]["answers"])
    workshop.dispose()


class Flaky:
    """Fails statements as a locked SQLite does: each one the first time, or all of them."""

    def __init__(self) -> None:
        self.fails = "none"
        self.met: Counter[str] = Counter()

    def __call__(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if self.fails == "none":
            return
        self.met[statement] += 1
        if self.fails == "all" or self.met[statement] == 1:
            raise OperationalError(statement, {}, error_of_sqlite(5))


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Flaky:
    """Make the ledger fail on demand for a run, but not for the test."""
    found = Flaky()

    def open_flaky(url: str) -> Engine:
        engine = open_ledger(url)
        event.listen(engine, "before_cursor_execute", found)
        return engine

    monkeypatch.setattr("presswork.engine.opening.open_ledger", open_flaky)
    monkeypatch.setattr("presswork.engine.resources.writer.FIRST_PAUSE_S", 0.001)
    return found


async def test_every_read_and_every_write_of_a_run_waits_for_the_ledger(
    shop: Workshop, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "120")
    unwatch = watch(lambda _progress: setattr(flaky, "fails", "first"))
    try:
        summary = await shop.call(support_replies)
    finally:
        unwatch()
        flaky.fails = "none"

    assert summary.status == "completed"
    steps = {step.step: step for step in summary.steps}
    assert steps["support_triage"].succeeded == 30
    assert steps["support_reply"].succeeded > 0
    assert summary.exit_status == 0
    assert shop.sandbox.stats()["repeated_bodies"] == 0
    assert find_spills(load_settings().spill_dir) == []
    assert shop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert shop.value("SELECT status FROM runs") == "completed"
    # Look-ups, claims, attempts, both steps' generations, figures, the end.
    assert len(flaky.met) > 20


async def test_ctrl_c_ends_the_waiting_for_a_ledger_and_nothing_is_lost(
    workshop: Workshop, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "3000")
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=200)
    running = asyncio.create_task(workshop.run(concurrency=6, chunk_size=5))
    await workshop.answered(12)
    flaky.fails = "all"
    await until(lambda: flaky.met.total() >= 6)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Abort):
        await running
    flaky.fails = "none"
    assert len(find_spills(load_settings().spill_dir)) == 1
    await assert_goes_on(workshop, workshop.sandbox.stats()["served"]["answers"])
    # Ctrl-C also ended the wait for the commits of attempts, which were never sent.
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0


async def run_until_it_spills(workshop: Workshop, flaky: Flaky) -> str:
    """Run until the ledger fails with requests in flight, and return why the run ended."""
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=200)
    running = asyncio.create_task(workshop.run(**ALL_OPEN))
    await workshop.answered(12)
    flaky.fails = "all"
    with pytest.raises(LedgerAwayError) as ended:
        await running
    return str(ended.value)


async def test_run_that_ends_with_a_ledger_that_is_back_leaves_no_answer_in_a_file(
    workshop: Workshop, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "0.01")
    spilled: list[Path] = []

    def keep(folder: Path, run_id: str, batch: WriteBatch) -> Path:
        spilled.append(keep_batch(folder, run_id, batch))
        flaky.fails = "none"
        return spilled[-1]

    monkeypatch.setattr("presswork.engine.resources.writer.keep_batch", keep)
    await run_until_it_spills(workshop, flaky)
    # Its claims are released: what another run does not find in the ledger, it pays for again.
    assert spilled
    assert find_spills(load_settings().spill_dir) == []
    answered = workshop.sandbox.stats()["served"]["answers"]
    assert workshop.value("SELECT count(*) FROM current_content") == answered
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert (await workshop.run()).cached == answered
    assert workshop.sandbox.stats()["repeated_bodies"] == 0


async def test_request_whose_answer_no_disk_took_is_perhaps_billed_also_if_the_ledger_is_back_at_the_end(
    workshop: Workshop, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "0.01")

    def keep(_folder: Path, _run_id: str, _batch: WriteBatch) -> Path:
        flaky.fails = "none"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("presswork.engine.resources.writer.keep_batch", keep)
    assert "are lost" in await run_until_it_spills(workshop, flaky)
    kept = workshop.value("SELECT count(*) FROM attempts WHERE cost_usd IS NOT NULL")
    perhaps = workshop.value("SELECT count(*) FROM attempts WHERE error_type IN ('crashed', 'abandoned')")
    answered = workshop.sandbox.stats()["served"]["answers"]
    assert kept < answered <= kept + perhaps
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
