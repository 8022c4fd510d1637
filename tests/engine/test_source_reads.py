"""A source is read in separate threads; unwanted reads are interrupted, and no exit waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, text

from db.database_errors import SourceUnreachableError
from db.sources.access import open_source
from presswork.engine.resources.source_reads import Reading, SourceReader
from presswork.engine.resources.stopping import Stopper
from presswork.errors import StoppedError
from presswork.settings import ROOT
from tests.engine.workshop import eventually
from tests.waiting import until

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
SLEEPING = "SELECT pg_sleep(600)"


def execute(statement: str) -> Callable[[Engine], object]:
    def run(engine: Engine) -> object:
        with engine.connect() as connection:
            return connection.execute(text(statement)).scalar()

    return run


def source_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "presswork-source"]


async def ended() -> bool:
    async def look() -> int:
        return len(source_threads())

    return bool(await eventually(look, lambda count: count == 0) == 0)


@pytest.fixture
def stopper() -> Stopper:
    return Stopper(wait_s=30, close_gate=lambda _reason: None)


@pytest.fixture
def file(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'source.sqlite'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE items (id TEXT)"))
    engine.dispose()
    return url


@pytest.fixture
def reader(file: str, stopper: Stopper) -> SourceReader:
    return SourceReader(partial(open_source, file), stopper.pursuing)


async def at_work() -> None:
    await until(source_threads)
    # Long enough for the statement to start.
    await asyncio.sleep(0.3)


async def test_read_returns_and_raises_what_its_work_does(reader: SourceReader) -> None:
    assert await reader.read(execute("SELECT 7")) == 7
    with pytest.raises(ZeroDivisionError):
        await reader.read(lambda _engine: 1 // 0)
    assert await ended()


async def test_stop_interrupts_a_statement_and_leaves_the_task_that_waits_for_it(
    reader: SourceReader, stopper: Stopper
) -> None:
    waiting = asyncio.create_task(reader.read(execute(ENDLESS)))
    await at_work()
    stopper.stop("SIGINT")
    with pytest.raises(StoppedError, match="SIGINT"):
        await waiting
    assert waiting.cancelling() == 0
    assert await ended()
    with pytest.raises(StoppedError):
        await reader.read(execute("SELECT 7"))
    stopper.close()


async def test_stop_interrupts_the_statement_of_a_source_that_was_being_opened(file: str, stopper: Stopper) -> None:
    opening, opens = threading.Event(), threading.Event()

    def open_late() -> Engine:
        opening.set()
        assert opens.wait(60)
        return open_source(file)

    waiting = asyncio.create_task(SourceReader(open_late, stopper.pursuing).read(execute(ENDLESS)))
    await asyncio.to_thread(opening.wait, 60)
    stopper.stop("SIGINT")
    await asyncio.sleep(0.5)
    opens.set()
    with pytest.raises(StoppedError, match="SIGINT"):
        await waiting
    assert await ended()
    stopper.close()


async def test_one_who_no_longer_waits_ends_his_own_statement_only(reader: SourceReader) -> None:
    release = threading.Event()
    other = asyncio.create_task(reader.read(lambda engine: (execute("SELECT 7")(engine), release.wait(60))))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(execute(ENDLESS)), 0.5)
    release.set()
    assert await other == (7, True)
    # The source can still be read.
    assert await reader.read(execute("SELECT 8")) == 8
    assert await ended()


@pytest.mark.postgres
async def test_statement_of_postgres_is_cancelled_on_the_server(postgres_server: str, stopper: Stopper) -> None:
    reader = SourceReader(partial(open_source, postgres_server), stopper.pursuing)
    waiting = asyncio.create_task(reader.read(execute(SLEEPING)))
    watcher = create_engine(postgres_server)
    running = execute(f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{SLEEPING}'")

    async def look() -> object:
        return await asyncio.to_thread(running, watcher)

    assert await eventually(look, lambda count: count == 1) == 1
    stopper.stop("Cancel in Prefect")
    with pytest.raises(StoppedError):
        await waiting
    assert await eventually(look, lambda count: count == 0) == 0
    assert await ended()
    stopper.close()
    watcher.dispose()


async def test_source_that_can_not_be_opened_is_tried_again_at_the_next_read(tmp_path: Path, stopper: Stopper) -> None:
    path = tmp_path / "later.sqlite"
    reader = SourceReader(partial(open_source, f"sqlite:///{path}"), stopper.pursuing)
    with pytest.raises(SourceUnreachableError):
        await reader.read(execute("SELECT 7"))
    path.touch()
    assert await reader.read(execute("SELECT 7")) == 7


async def test_reads_at_the_same_time_open_the_source_once(file: str, stopper: Stopper) -> None:
    opened: list[Engine] = []

    def open_it() -> Engine:
        opened.append(open_source(file))
        return opened[-1]

    reader = SourceReader(open_it, stopper.pursuing)
    await asyncio.gather(*(reader.read(execute("SELECT 7")) for _read in range(5)))
    assert len(opened) == 1


async def test_connections_close_with_the_last_read(file: str, stopper: Stopper) -> None:
    closed: list[object] = []
    release = threading.Event()

    def open_it() -> Engine:
        engine = open_source(file)
        event.listen(engine, "close", lambda connection, _entry: closed.append(connection))
        return engine

    def hold(engine: Engine) -> None:
        with engine.connect():
            release.wait(60)

    reader = SourceReader(open_it, stopper.pursuing)
    waiting = asyncio.create_task(reader.read(hold))
    await at_work()
    await reader.read(execute("SELECT 7"))
    assert not closed
    release.set()
    await waiting
    assert await ended()
    assert len(closed) >= 2
    # It can be read again.
    assert await reader.read(execute("SELECT 7")) == 7


LEFT_BEHIND = """
import asyncio, contextlib, time
from presswork.engine.resources.source_reads import SourceReader

async def main():
    reader = SourceReader(lambda: time.sleep(600), contextlib.nullcontext)
    try:
        await asyncio.wait_for(reader.read(lambda engine: None), 0.2)
    except TimeoutError:
        print("stopped waiting")

asyncio.run(main())
"""


def test_process_ends_though_a_thread_can_not_be_interrupted() -> None:
    # For example, the driver has no cancel or interrupt, or its host does not answer.
    command = [sys.executable, "-c", LEFT_BEHIND]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout.strip(), process.stderr) == (0, "stopped waiting", "")


def test_thread_ends_quietly_when_its_loop_is_gone() -> None:
    release = threading.Event()
    readings: list[Reading[bool]] = []

    async def give_up() -> None:
        readings.append(Reading(lambda: release.wait(60)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(readings[0].result), 0.05)

    asyncio.run(give_up())
    release.set()
    assert readings[0].result.result(timeout=60)
