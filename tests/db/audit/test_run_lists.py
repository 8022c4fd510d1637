"""Lists of runs hold what plain Python finds, in every order, and their figures are those of a single run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, update

from db.readers.audit import run_lists
from db.readers.audit.filters import FilterError, RunFilter
from db.readers.audit.run_lists import RUN_SORTS, RunSort, list_runs_page
from db.readers.figures import RunLine, find_run
from db.tables import StoredRun
from tests.db.rows import Book

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
NOTHING = timedelta(0)


@pytest.fixture
def runs(ledger: Engine) -> list[str]:
    """Eight runs with equal and different values: two open ones, one that crashed, and two without any request."""
    found = []
    for number in range(8):
        started = BEGIN + timedelta(hours=number)
        book = Book(ledger, flow="copy" if number % 2 else "mails", started_at=started)
        found.append(book.run_id)
        for key in range(number // 2):
            book.add(f"K{key}", settled={"cost_usd": Decimal("0.0000000001") * key})
        if number in {3, 4, 6}:
            book.add("bad", status="failed", output=None, output_hash=None, settled={"cost_usd": None})
        if number == 5:
            with ledger.begin() as connection:
                connection.execute(update(StoredRun).where(StoredRun.id == book.run_id).values(status="crashed"))
        if number not in {2, 7}:
            book.close()
            with ledger.begin() as connection:
                took = timedelta(seconds=number // 3)
                its_row = update(StoredRun).where(StoredRun.id == book.run_id)
                connection.execute(its_row.values(ended_at=started + took))
    return found


def pages(ledger: Engine, wanted: RunFilter, sort: RunSort, limit: int) -> list[list[RunLine]]:
    found, before = [], None
    while True:
        page = list_runs_page(ledger, wanted, sort, before, limit)
        found.append(page.lines)
        before = page.before
        if before is None:
            return found


def value_of(line: RunLine, sort: RunSort) -> Any:
    if sort == "cost":
        return line.usage.cost_usd or Decimal(0)
    if sort == "failures":
        return line.without_content
    if sort == "duration":
        return NOTHING - timedelta(1) if line.ended_at is None else line.ended_at - line.started_at
    return line.id


@pytest.mark.parametrize("sort", RUN_SORTS)
def test_pages_of_every_order_have_each_run_once(ledger: Engine, runs: list[str], sort: RunSort) -> None:
    for limit in (1, 3, 8):
        found = [line for page in pages(ledger, RunFilter(), sort, limit) for line in page]
        assert sorted(line.id for line in found) == runs
        assert found == sorted(found, key=lambda line: (value_of(line, sort), line.id), reverse=True)


def test_the_figures_of_closed_and_open_runs_are_those_of_a_single_run(ledger: Engine, runs: list[str]) -> None:
    for line in list_runs_page(ledger, RunFilter()).lines:
        assert line == find_run(ledger, line.id)


def test_a_filter_leaves_the_others_out_and_counts_its_own(ledger: Engine, runs: list[str]) -> None:
    for wanted, expected in (
        (RunFilter(flow="copy"), runs[1::2]),
        (RunFilter(status="running"), [runs[2], runs[7]]),
        (RunFilter(status="crashed"), []),
        (RunFilter(trigger="schedule"), []),
        (RunFilter(endpoint="sandbox"), runs),
        (RunFilter(since=BEGIN + timedelta(hours=6)), runs[6:]),
        (RunFilter(until=BEGIN + timedelta(hours=1)), runs[:1]),
    ):
        page = list_runs_page(ledger, wanted)
        assert sorted(line.id for line in page.lines) == expected
        assert page.count == len(expected)


def test_a_run_whose_process_has_ended_is_crashed_also_in_the_filter(ledger: Engine) -> None:
    book = Book(ledger, process="host/1/1")
    with ledger.begin() as connection:
        connection.exec_driver_sql("DELETE FROM leases")
    assert [line.id for line in list_runs_page(ledger, RunFilter(status="crashed")).lines] == [book.run_id]
    assert list_runs_page(ledger, RunFilter(status="running")).lines == []


def test_many_runs_are_not_counted(ledger: Engine, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lists, "COUNTED_UP_TO", 7)
    assert list_runs_page(ledger, RunFilter()).count is None


@pytest.mark.parametrize("before", ["", "7", "x:1", "99999999999999999999:1", "1.5:a", "٣:1"])
def test_a_page_that_begins_nowhere_is_an_error(ledger: Engine, before: str) -> None:
    with pytest.raises(FilterError, match="not the end of a page"):
        list_runs_page(ledger, RunFilter(), "cost", before)


def test_an_unknown_order_names_the_known_ones(ledger: Engine) -> None:
    with pytest.raises(FilterError, match=r"sorted by 'name'\. Available: started, cost, failures, duration\."):
        list_runs_page(ledger, RunFilter(), "name")  # type: ignore[arg-type]


def test_a_shard_of_an_earlier_release_counts_in_its_run(ledger: Engine) -> None:
    whole = Book(ledger)
    shard = Book(ledger, parent_run_id=whole.run_id, trigger="shard")
    dear = Book(ledger)
    shard.add("A-1", settled={"cost_usd": Decimal(2)})
    dear.add("A-1", settled={"cost_usd": Decimal(1)})
    for book in (shard, whole, dear):
        book.close()
    lines = list_runs_page(ledger, RunFilter(), "cost").lines
    assert [(line.id, line.usage.cost_usd) for line in lines] == [(whole.run_id, Decimal(2)), (dear.run_id, Decimal(1))]
