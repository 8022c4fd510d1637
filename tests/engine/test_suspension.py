"""A suspended run waits until it is due or anyone resumes it; then it continues as the same run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.exceptions import Abort, Pause
from sqlalchemy import text

from db.clock import new_id
from db.machine import use
from presswork import RunOptions, Summary, open_run
from tests.engine.forked import LEFT, fork
from tests.engine.plain_host import FLOW_RUN, PlainHost
from tests.engine.workshop import Workshop
from tests.machines import SetMachine
from tests.waiting import until

REASON = "the notes wait for approval"
APPROVED, DUE_IN_S = "TEST_APPROVED", "TEST_DUE_IN_S"
GATHERED = """---
output: SubjectLine
---
{% block user %}One line for {% for line in note %}{{ line.subject }} {% endfor %}{% endblock %}
"""


def is_approved() -> bool:
    return Path(os.environ[APPROVED]).exists()


def approve(*, by_now: bool = True) -> None:
    """Approve the notes, or withdraw the approval."""
    file = Path(os.environ[APPROVED])
    file.touch() if by_now else file.unlink()


def elsewhere() -> None:
    """Make this process look like one on another machine."""
    socket.gethostname = lambda: "another-machine"


def rebooted() -> None:
    """Make this process look like one after a reboot."""
    machine = SetMachine()
    machine.boot_id = "another boot"
    use(machine)


@flow
async def approved() -> Summary:
    """Generate notes, wait until a file exists that approves them, then generate from all of them."""
    async with open_run(RunOptions(concurrency=2)) as run:
        notes = await run.generate("note", run.select("note"))
        while not is_approved():
            due = datetime.now(UTC) + timedelta(seconds=float(os.environ.get(DUE_IN_S, "86400")))
            await run.suspend(REASON, due)
        await run.generate("gathered", notes.together())
        return run.summary()


@pytest.fixture
def waiting(workshop_on_each: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop with one flow run for all processes, in which nothing is approved yet."""
    monkeypatch.setenv(FLOW_RUN, new_id())
    prepare(workshop_on_each, tmp_path, monkeypatch)
    return workshop_on_each


def prepare(workshop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything that the flow needs, without an approval."""
    (workshop.templates / "gathered.md.j2").write_text(GATHERED, encoding="utf-8")
    monkeypatch.setenv(APPROVED, str(folder / "approved"))
    workshop.numbered(4)


def run_of(workshop: Workshop) -> dict[str, Any]:
    (row,) = workshop.rows("SELECT * FROM runs")
    return row


def held(workshop: Workshop) -> tuple[Any, ...]:
    """Count the leases, the claims and the open attempts."""
    open_ones = "SELECT count(*) FROM attempts WHERE ended_at IS NULL"
    return tuple(
        workshop.value(sql) for sql in ("SELECT count(*) FROM leases", "SELECT count(*) FROM claims", open_ones)
    )


async def in_place(workshop: Workshop) -> None:
    """Wait until the run logs that it waits."""
    await workshop.asked(4)
    await until(lambda: workshop.hosts[-1].logged[-1].startswith("The run waits until"))


async def test_run_is_left_and_says_why_and_until_when(waiting: Workshop) -> None:
    with pytest.raises(Pause):
        await waiting.call(approved)
    row = run_of(waiting)
    assert (row["status"], row["suspended_for"], row["ended_at"]) == ("suspended", REASON, None)
    assert row["due_at"] is not None
    assert held(waiting) == (0, 0, 0)
    summary = waiting.hosts[-1].summary
    assert summary is not None
    assert (summary.status, summary.succeeded, summary.exit_status) == ("suspended", 4, 1)
    (note,) = summary.notes
    assert note.startswith("The run is suspended until ")
    assert note.endswith(f" UTC: {REASON}")


async def test_run_that_is_suspended_is_taken_up_on_another_machine_and_after_a_reboot(
    waiting: Workshop, tmp_path: Path
) -> None:
    for first, environment in (
        (None, {}),
        # Before it is due, on a machine without the spooled records: they are read again.
        (elsewhere, {"PRESSWORK_SPOOL_DIR": str(tmp_path / "other-spools")}),
        (rebooted, {}),
    ):
        process = await fork(approved, first=first, environment=environment)
        assert await process.wait() == LEFT
        assert (run_of(waiting)["status"], waiting.requests, held(waiting)) == ("suspended", 4, (0, 0, 0))
    with waiting.source.begin() as connection:
        # The run still uses the records that were read on this machine.
        connection.execute(text("DELETE FROM items"))
    approve()
    process = await fork(approved, first=rebooted)
    assert await process.wait() == 0

    row = run_of(waiting)
    assert (row["status"], row["suspended_for"], row["due_at"]) == ("completed", None, None)
    assert waiting.requests == 5
    assert waiting.sandbox.stats()["repeated_bodies"] == 0
    assert waiting.statuses(row["id"]) == {"succeeded": 5}
    steps = waiting.rows("SELECT step, state FROM run_steps ORDER BY position")
    assert [(step["step"], step["state"]) for step in steps] == [("note", "done"), ("gathered", "done")]
    assert waiting.value("SELECT count(DISTINCT lease_id) FROM attempts") == 2


async def test_unchanged_records_stay_with_a_run_that_is_left_and_what_gathers_sees_them(waiting: Workshop) -> None:
    approve()
    await waiting.call(approved)
    approve(by_now=False)
    os.environ[FLOW_RUN] = new_id()  # the fixture has set it, and restores it
    waiting.items({"new": "a fifth"})
    with pytest.raises(Pause):
        await waiting.call(approved)
    assert waiting.value("SELECT count(*) FROM working_rows WHERE status IS NOT NULL") == 4
    approve()
    summary = await waiting.call(approved)
    assert (summary.cached, summary.succeeded, waiting.requests) == (4, 2, 7)
    made_from = "SELECT count(*) FROM generation_parents p JOIN generations g ON g.id = p.generation_id"
    assert waiting.value(f"{made_from} WHERE g.run_id = :id", id=summary.run_id) == 5
    assert waiting.value("SELECT count(*) FROM working_rows") == 0


async def test_run_that_nothing_could_start_again_waits_in_place_with_its_lease(
    waiting: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlainHost, "can_end_process", False)
    monkeypatch.setenv(DUE_IN_S, "0.2")
    running = asyncio.create_task(waiting.call(approved))
    await in_place(waiting)
    assert (run_of(waiting)["status"], held(waiting)) == ("running", (1, 0, 0))
    approve()
    summary = await running
    assert (summary.status, summary.succeeded, waiting.requests) == ("completed", 5, 5)


async def test_run_that_waits_in_place_can_be_stopped(waiting: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainHost, "can_end_process", False)
    running = asyncio.create_task(waiting.call(approved))
    await in_place(waiting)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Abort):
        await asyncio.wait_for(running, 60)
    assert (run_of(waiting)["status"], held(waiting)) == ("cancelled", (0, 0, 0))


async def test_run_that_is_suspended_can_be_resumed_by_a_new_one(
    waiting: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Pause):
        await waiting.call(approved)
    left = run_of(waiting)["id"]
    monkeypatch.setenv(FLOW_RUN, new_id())

    @flow(name="approved")
    async def again() -> Summary:
        async with open_run(RunOptions(resumes=left), flow="approved") as run:
            await run.generate("note", run.select("note"))
            return run.summary()

    summary = await waiting.call(again)
    assert (summary.cached, waiting.requests, summary.exit_status) == (4, 4, 0)
    assert waiting.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"suspended": 1, "completed": 1}


async def test_due_time_without_a_zone_is_refused(waiting: Workshop) -> None:
    @flow
    async def vague() -> None:
        async with open_run(RunOptions()) as run:
            await run.suspend(REASON, datetime.fromisoformat("2026-01-01"))

    with pytest.raises(ValueError, match="time zone"):
        await waiting.call(vague)
