"""Stop a process exactly before or after it takes a run's lease, suspends the run or closes it.

It is killed, frozen (as when a machine sleeps) or cancelled there. Then the same flow run starts again and completes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from db.clock import new_id
from db.ledger import lifecycle
from db.readers.runs import running, state_of
from presswork import RunOptions, Summary, open_run
from tests.engine.forked import Forked, fork
from tests.engine.plain_host import FLOW_RUN
from tests.engine.test_suspension import APPROVED, approve, approved
from tests.engine.workshop import Workshop
from tests.waiting import until

SUSPENDS, CLOSES, BEGINS = "suspend_run", "close_run", "begin_or_resume"
RECORDS = 4


@flow(name="approved")
async def first_records() -> Summary:
    """Do an earlier pass of the same flow run, with its first records."""
    async with open_run(RunOptions(limit=2), flow="approved") as run:
        await run.generate("note", run.select("note"))
        return run.summary()


@pytest.fixture
def work(workshop_on_each: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop with one flow run for all processes; the run waits for approval until the test approves it."""
    workshop = workshop_on_each
    monkeypatch.setenv(FLOW_RUN, new_id())
    monkeypatch.setenv(APPROVED, str(tmp_path / "approved"))
    (workshop.templates / "gathered.md.j2").write_text(
        "---\noutput: SubjectLine\n---\n{% block user %}{{ note | length }} notes{% endblock %}\n", encoding="utf-8"
    )
    workshop.numbered(RECORDS)
    return workshop


def stop(how: signal.Signals) -> None:
    """Stop this process by a signal, before it does anything else."""
    if how == signal.SIGSTOP:
        # Sent to the process, the signal would reach another thread first, and this one would continue for a moment.
        signal.pthread_kill(threading.get_ident(), how)
    else:
        os.kill(os.getpid(), how)


def stop_at(name: str, *, before: bool, how: signal.Signals) -> None:
    """Make this process stop before or after it calls this function of db.ledger.lifecycle."""
    whole = getattr(lifecycle, name)

    def to_the_edge(*arguments: Any, **named: Any) -> Any:
        setattr(lifecycle, name, whole)
        if before:
            stop(how)
        found = whole(*arguments, **named)
        if not before:
            stop(how)
        return found

    setattr(lifecycle, name, to_the_edge)


async def stopped_at(name: str, *, before: bool, how: signal.Signals) -> Forked:
    return await fork(approved, first=partial(stop_at, name, before=before, how=how))


async def frozen(process: Forked) -> None:
    """Wait until a process has stopped itself."""
    async with asyncio.timeout(60):
        await until(lambda: is_stopped(process.pid), pause_s=0.02)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def opened_again(work: Workshop) -> None:
    """Start the flow run again, and assert that it completes."""
    approve()
    summary = await work.call(approved)
    assert_ended_well(work)
    assert (summary.status, summary.succeeded, summary.records) == ("completed", RECORDS + 1, RECORDS)


def assert_ended_well(work: Workshop) -> None:
    (run,) = work.rows("SELECT * FROM runs")
    assert (run["status"], run["suspended_for"], run["ended_at"] is not None) == ("completed", None, True)
    assert work.statuses(run["id"]) == work.written(run["id"]) == {"succeeded": RECORDS + 1}
    # No request is in flight at these edges, so none is paid for twice.
    assert (work.requests, work.sandbox.stats()["repeated_bodies"]) == (RECORDS + 1, 0)
    for left in ("leases", "claims", "working_rows", "attempts WHERE ended_at IS NULL"):
        assert work.value(f"SELECT count(*) FROM {left}") == 0, left


async def test_process_that_does_not_end_is_killed(work: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.engine.forked.LONGEST_S", 1)
    process = await stopped_at(BEGINS, before=True, how=signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            await process.wait()
        await until(lambda: process.returncode == -signal.SIGKILL, pause_s=0.02)
    finally:
        process.kill()
    assert work.requests == 0


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", [BEGINS, SUSPENDS, CLOSES])
async def test_run_whose_process_is_killed_at_an_edge_goes_on(work: Workshop, name: str, before: bool) -> None:
    if name == CLOSES:
        approve()
    process = await stopped_at(name, before=before, how=signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    await opened_again(work)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_run_whose_process_is_killed_as_it_takes_it_up_goes_on(work: Workshop, before: bool) -> None:
    await work.call(first_records)
    process = await stopped_at(BEGINS, before=before, how=signal.SIGKILL)
    await process.wait()
    status = work.value("SELECT status FROM runs")
    assert (status, work.requests) == ("completed" if before else "running", 2)
    await opened_again(work)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", [BEGINS, SUSPENDS, CLOSES])
async def test_process_that_wakes_at_an_edge_changes_nothing_of_what_another_has_done_meanwhile(
    work: Workshop, name: str, before: bool
) -> None:
    if name == CLOSES:
        approve()
    process = await stopped_at(name, before=before, how=signal.SIGSTOP)
    try:
        await frozen(process)
        await opened_again(work)
        os.kill(process.pid, signal.SIGCONT)
        await process.wait()
    finally:
        process.kill()
    assert_ended_well(work)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", [BEGINS, SUSPENDS, CLOSES])
async def test_run_that_is_cancelled_at_an_edge_ends_in_order_and_goes_on(
    work: Workshop, name: str, before: bool
) -> None:
    if name == CLOSES:
        approve()
    process = await stopped_at(name, before=before, how=signal.SIGINT)
    await process.wait()
    # While a run opens, Ctrl-C ends the process at once and leaves its lease, which is then seen as expired.
    assert work.value("SELECT count(*) FROM leases") == 0 or name == BEGINS
    shown = {state_of(row["id"], row["status"], running(work.ledger)) for row in work.rows("SELECT * FROM runs")}
    assert shown <= ({"crashed"} if name == BEGINS else {"cancelled", "completed", "suspended"})
    await opened_again(work)
