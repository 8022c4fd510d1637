"""Jobs of a process's threads can be held up while all else goes on."""

import asyncio
import gc
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from db.machine import here
from db.session import begin_write
from tests.nights.simulated import database
from tests.nights.simulated.database import Ledger
from tests.nights.simulated.machines import KilledError
from tests.nights.simulated.processes import FileLocks, Job, SimulatedProcess
from tests.nights.simulated.workplace import open_workplace
from tests.nights.simulated.world import World

ENDS = 1000.0


@pytest.fixture
def world() -> Iterator[World]:
    world = World(1)
    yield world
    world.forget()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(Path(tmp_path_factory.mktemp("ledger")) / "ledger.sqlite")


def held_up(seconds: float) -> None:
    job = Job.now()
    assert job is not None
    job.hold_up(seconds)


def start(world: World, name: str, *jobs: Callable[[], object], executor: ThreadPoolExecutor | None = None) -> Any:
    """Start a process that does these jobs in threads; a failed one fails the test."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, job) for job in jobs))

    return world.start(name, world.host("machine"), main)


def ran_without_error(*processes: SimulatedProcess) -> None:
    for process in processes:
        assert process.task is not None
        process.task.result()


def test_process_that_ends_itself_at_once_is_killed(world: World) -> None:
    story = []

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: here().end_process(130))
        try:
            await asyncio.sleep(10)
        finally:
            story.append("cleaned up")

    process, other = (world.start(name, world.host("machine"), main) for name in ("process", "other"))
    world.call_at(1, partial(process.interrupt, signal.SIGINT))
    world.run(ENDS)
    assert (process.killed, other.killed, story) == (True, False, ["cleaned up"])
    assert "killed at its step 2 by its own exit with status 130" in "".join(world.story)


def test_job_goes_on_as_its_process_after_others_have_run(world: World) -> None:
    story = []

    def job() -> None:
        for _time in range(2):
            assert world.current is process
            story.append((here().pid, asyncio.get_running_loop()))
            held_up(5)

    async def others() -> None:
        await asyncio.sleep(2)
        story.append((here().pid, asyncio.get_running_loop()))

    process = start(world, "held up", job)
    other = world.start("other", world.host("another machine"), others)
    world.run(ENDS)
    ran_without_error(process, other)
    own = (process.pid, process.loop)
    assert story == [own, (other.pid, other.loop), own]
    assert world.now >= 10


def test_event_loop_goes_on_while_its_job_is_held_up(world: World) -> None:
    story = []

    def job() -> None:
        held_up(5)
        story.append("job")

    async def main() -> None:
        at_work = asyncio.create_task(asyncio.to_thread(job))
        await asyncio.sleep(1)
        story.append("loop")
        await at_work

    ran = world.start("one", world.host("machine"), main)
    world.run(ENDS)
    ran_without_error(ran)
    assert story == ["loop", "job"]


@pytest.mark.parametrize(("executor", "told"), [(ThreadPoolExecutor(1), "aAbB"), (None, "abBA")])
def test_only_jobs_of_the_default_executor_overlap(
    world: World, executor: ThreadPoolExecutor | None, told: str
) -> None:
    story = []

    def first() -> None:
        story.append("a")
        held_up(5)
        story.append("A")

    def second() -> None:
        # The default executor's may begin in any order.
        held_up(0.1)
        story.append("b")
        held_up(1)
        story.append("B")

    process = start(world, "one", first, second, executor=executor)
    world.run(ENDS)
    ran_without_error(process)
    assert "".join(story) == told


def test_job_whose_process_is_killed_meanwhile_never_goes_on(world: World) -> None:
    story = []

    def job() -> None:
        held_up(5)
        story.append("went on")

    process = start(world, "killed", job, lambda: held_up(4))
    world.call_at(2, lambda: world.kill(process))
    world.run(ENDS)
    assert story == []
    assert not process.has_jobs


def test_what_is_frozen_for_the_collector_stays_frozen_after_a_workplace() -> None:
    frozen = [object()]
    gc.freeze()
    with open_workplace():
        pass
    assert not any(each is frozen for each in gc.get_objects())  # which leaves out what is frozen


def test_killed_job_leaves_its_files_as_its_own_process_while_another_goes_on(world: World) -> None:
    story = []

    def job() -> None:
        try:
            held_up(5)
        finally:
            story.append((here().pid, asyncio.get_running_loop()))

    async def killer() -> None:
        await asyncio.sleep(2)
        world.kill(killed)
        story.append((here().pid, asyncio.get_running_loop()))

    killed = start(world, "killed", job)
    other = world.start("other", world.host("another machine"), killer)
    world.run(ENDS)
    ran_without_error(other)
    assert story == [(each.pid, each.loop) for each in (killed, other)]


def test_killed_job_ends_the_others_of_its_process(world: World) -> None:
    story = []

    def job() -> None:
        held_up(1)
        story.append("killed")
        raise KilledError

    def other() -> None:
        held_up(5)
        story.append("went on")

    process = start(world, "killed", job, other)
    world.run(ENDS)
    assert process.killed
    assert story == ["killed"]


@pytest.mark.parametrize(("killed_at", "locked_at"), [(None, 20), (2, 2)])
def test_job_waits_for_a_file_that_another_has_locked_and_its_death_releases_it(
    world: World, tmp_path: Path, killed_at: float | None, locked_at: float
) -> None:
    file, times = tmp_path / "file", []

    def lock(seconds: float) -> None:
        with file.open("w") as opened:
            FileLocks.flock(opened.fileno(), FileLocks.LOCK_EX)
            times.append(world.now)
            held_up(seconds)

    first = start(world, "first", lambda: lock(20))
    world.call_at(1, lambda: start(world, "second", lambda: lock(0)))
    if killed_at is not None:
        world.call_at(killed_at, lambda: world.kill(first))
    world.run(ENDS)
    ran_without_error(world.processes[1])
    assert locked_at <= times[1] < locked_at + 0.1


@pytest.mark.parametrize("stop", ["freeze", "sleep"])
def test_job_of_a_stopped_process_goes_on_with_it(world: World, stop: str) -> None:
    times = []

    def job() -> None:
        held_up(5)
        times.append(world.now)

    process = start(world, "stopped", job)
    stops = {"freeze": lambda: world.freeze(process, 60), "sleep": lambda: world.sleep(process.on, 60)}
    world.call_at(2, stops[stop])
    world.run(ENDS)
    ran_without_error(process)
    assert times == [62]


def test_process_ends_after_its_threads(world: World) -> None:
    story = []

    def job() -> None:
        held_up(5)
        story.append("job")

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, job)
        await asyncio.sleep(1)

    process = world.start("one", world.host("machine"), main)
    world.run(ENDS)
    assert story == ["job"]
    assert process.ended_at is not None
    assert process.ended_at >= 5


def add_one(connection: Connection) -> None:
    connection.execute(text("INSERT INTO night_refused VALUES ('another')"))


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM night_refused")).scalar_one())


def counted(world: World, ledger: Ledger, job: Callable[[], object]) -> None:
    """Do a job while another process commits rows."""

    def write() -> None:
        with begin_write(ledger.engine) as connection:
            add_one(connection)

    async def others() -> None:
        for _time in range(10):
            await asyncio.to_thread(write)
            await asyncio.sleep(0.2)

    ledger.begin(world, (), ())
    process = start(world, "one", job)
    other = world.start("other", world.host("machine"), others)
    world.run(ENDS)
    ran_without_error(process, other)
    ledger.engine.dispose()


def test_another_process_commits_between_two_transactions_of_a_job(
    world: World, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "HELD_UP", 1.0)
    seen = []

    def job() -> None:
        for _time in range(4):
            with ledger.engine.connect() as connection:
                seen.append(count(connection))

    counted(world, ledger, job)
    assert len(set(seen)) > 1
    assert any("one goes on with" in line for line in world.story)


def test_job_that_has_a_transaction_open_is_not_held_up(
    world: World, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "HELD_UP", 1.0)
    differences = []

    def job() -> None:
        with begin_write(ledger.engine) as writing:
            before = count(writing)
            for _time in range(4):
                with ledger.engine.connect() as reading:
                    differences.append(count(reading) - before)

    counted(world, ledger, job)
    assert differences == [0] * 4
