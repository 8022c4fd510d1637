"""Ended runs are added up when another one begins, and never keep it from beginning."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select, text

from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.rollups.marks import roll_up_ended
from db.session import rows_of
from db.tables import RolledUp
from presswork.engine.resources.run_ledger import recover_crashed_runs
from tests.db.rows import Book


def closed_run_with_a_late_row(ledger: Engine) -> str:
    """Write to a closed run as a spill import does, which takes its mark away."""
    book, late = Book(ledger), WriteBatch()
    book.close()
    book.generation(late, "hat")
    write(ledger, late)
    return book.run_id


def test_run_that_can_not_be_added_up_keeps_no_other_from_beginning(
    ledger: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    closed_run_with_a_late_row(ledger)
    with ledger.begin() as connection:
        connection.execute(text("DROP TABLE prompt_cache_rollup"))

    recover_crashed_runs(ledger, [], but="")

    assert "could not be added up" in caplog.text


def test_runs_that_are_left_when_the_time_is_over_are_added_up_the_next_time(ledger: Engine) -> None:
    runs = {closed_run_with_a_late_row(ledger) for _run in range(2)}

    assert roll_up_ended(ledger, within_s=0) == 0
    recover_crashed_runs(ledger, [], but="")
    assert {row.run_id for row in rows_of(ledger, select(RolledUp.run_id))} == runs
