"""A flow that Prefect cuts off at its `timeout_seconds` loses no answer that it has paid for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from db.ledger.spill import find_spills
from presswork.engine.resources.writer import Writer
from tests.engine.workshop import Workshop

RECORDS, ANSWERED = 8, 4


@pytest.fixture
def work(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop in which answers wait for their commit for a while."""
    monkeypatch.setenv("PRESSWORK_COMMIT_INTERVAL_S", "0.5")
    workshop.numbered(RECORDS)
    return workshop


def when_answered(then: Callable[[Writer], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `then` when some answers wait for their commit."""
    added: list[Any] = []
    add = Writer.add_generation

    def add_and_count(writer: Writer, *row: Any) -> None:
        add(writer, *row)
        added.append(row)
        if len(added) == ANSWERED:
            then(writer)

    monkeypatch.setattr(Writer, "add_generation", add_and_count)


async def cut_off(work: Workshop, monkeypatch: pytest.MonkeyPatch, first: Callable[[], object] = lambda: None) -> None:
    """Run until some answers wait, then cancel this and every later await of the flow, as Prefect does."""

    def cancel(_writer: Writer) -> None:
        first()
        scope.cancel()

    with anyio.CancelScope() as scope:
        when_answered(cancel, monkeypatch)
        await work.run(concurrency=4)
    assert scope.cancelled_caught


async def assert_goes_on(work: Workshop) -> None:
    again = await work.run()
    assert (again.cached, again.succeeded) == (ANSWERED, RECORDS - ANSWERED)


async def test_answers_of_a_flow_that_is_cut_off_are_committed(work: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    await cut_off(work, monkeypatch)

    assert work.counts("SELECT status, count(*) FROM generations GROUP BY 1") == {"succeeded": ANSWERED}
    assert work.value("SELECT status FROM runs") == "cancelled"
    assert work.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert any("cancelled after" in line for line in work.hosts[0].logged)
    await assert_goes_on(work)


async def test_answers_of_a_flow_that_is_cut_off_without_a_ledger_are_kept_in_a_file(
    work: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRESSWORK_DATABASE_PATIENCE_S", "0")
    monkeypatch.setattr("db.session.BUSY_TIMEOUT_MS", 10)
    # The run can't write its end, so it seems active for a while.
    monkeypatch.setattr("db.ledger.leases.LEASE_S", 4)
    other = sqlite3.connect(str(work.ledger.url.database), isolation_level=None)
    await cut_off(work, monkeypatch, lambda: other.execute("BEGIN IMMEDIATE"))
    other.close()

    assert len(find_spills(tmp_path / "spill")) == 1
    await assert_goes_on(work)
    assert find_spills(tmp_path / "spill") == []
