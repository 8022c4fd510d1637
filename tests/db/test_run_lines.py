"""A page of runs takes as many statements as one run, and shows each run's own figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from db.clock import new_id
from db.ledger.leases import end, take
from db.readers.figures import count_generations, find_run, prompt_cache_use, usage
from db.readers.old_shards import shards_of
from db.readers.runs import workers_of
from db.session import begin_write
from db.tables import StoredLease, StoredRun
from tests.db.rows import Book, run_lines

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def counted(ledger: Engine) -> Iterator[list[str]]:
    """Collect the reading statements while the context is open."""
    found: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        found.extend([statement] if statement.startswith(("SELECT", "WITH")) else [])

    event.listen(ledger, "before_cursor_execute", hear)
    yield found
    event.remove(ledger, "before_cursor_execute", hear)


def add_runs(ledger: Engine, count: int) -> None:
    """Runs of all sorts: with shards, resumed with a shard that was still running, with all outcomes, and empty."""
    for number in range(count):
        started = NOON + timedelta(hours=number)
        run = Book(ledger, started_at=started, prefect_flow_run_id=new_id())
        match number % 4:
            case 0:
                shard = Book(ledger, parent_run_id=run.run_id, started_at=started, trigger="shard")
                first = shard.add("a", settled={"cost_usd": Decimal("0.02")})
                refused = shard.add("b", status="refused", output=None)
                run.reuse("a", first)
                run.reuse("a again", first)
                run.reuse("b", refused, status="refused")
                run.add("c", step="later", prompt="later")
                again = Book(
                    ledger,
                    prefect_flow_run_id=run.run.prefect_flow_run_id,
                    started_at=started + timedelta(minutes=1),
                    resumes_run_id=run.run_id,
                )
                again.reuse("a", first)
            case 1:
                source = run.add("a")
                Book(ledger, started_at=started).reuse("a", source)
            case 2:
                nothing = dict.fromkeys(("http_status", "model", "input_tokens", "output_tokens", "cost_usd"))
                lost = nothing | {"error_type": "timeout"}
                run.add("a", status="failed", output=None, settled=lost)
                run.add("b", settled={"cost_usd": None})


@pytest.mark.parametrize("count", [1, 20, 60])
def test_page_of_runs_takes_a_constant_number_of_statements(ledger: Engine, count: int) -> None:
    add_runs(ledger, count)
    with counted(ledger) as statements:
        lines = run_lines(ledger, limit=count)

    assert len(lines) == count
    assert len(statements) == 10


def test_list_shows_the_same_of_each_run_as_a_single_run(ledger: Engine) -> None:
    add_runs(ledger, 12)
    lines = run_lines(ledger, limit=100)

    assert len(lines) == 12 + 3 + 3
    assert lines == [find_run(ledger, line.id) for line in lines]
    for line in lines:
        counts = count_generations(ledger, line.id)
        assert line.usage == usage(ledger, line.id)
        assert line.generations == sum(each.count for each in counts)
        assert line.cached == sum(each.count for each in counts if (each.status, each.origin) == ("succeeded", "cache"))
    # The page has a run with a shard, and the run that found that shard running.
    assert [len(shards_of(ledger, line.id)) for line in lines].count(1) == 6
    assert {line.usage.requests for line in lines} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("ended", "day"), [("2026-03-01T23:59:59+00:00", "2026-03-01"), ("2026-03-02T00:00:01+00:00", "2026-03-02")]
)
@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles"])
def test_day_of_a_price_is_utc_wherever_the_session_is(ledger: Engine, ended: str, day: str, zone: str) -> None:
    book = Book(ledger)
    book.add("a", settled={"ended_at": datetime.fromisoformat(ended), "cache_read_tokens": 5000})
    if ledger.dialect.name == "postgresql":

        @event.listens_for(ledger, "engine_connect")
        def move(connection: Any) -> None:
            connection.exec_driver_sql(f"SET TIME ZONE '{zone}'")

    (use,) = prompt_cache_use(ledger, book.run_id)
    with ledger.connect() as connection:
        connection.exec_driver_sql("UPDATE attempts SET started_at = ended_at")
        shown = connection.exec_driver_sql("SELECT day FROM usage_by_day").scalar()

    assert str(use.day) == day
    assert str(shown) == day


# The state of a run, which its leases determine


@pytest.mark.parametrize("status", ["running", "suspended", "crashed", "completed"])
@pytest.mark.parametrize("worker", ["main", "helper 1", None])
def test_run_is_running_as_long_as_anyone_works_on_it(ledger: Engine, status: str, worker: str | None) -> None:
    flow_run = new_id()
    book = Book(ledger, prefect_flow_run_id=flow_run)
    with begin_write(ledger) as connection:
        end(connection, book.lease)
        connection.execute(update(StoredRun).values(status=status))
        if worker is not None:
            take(connection, book.run_id, worker, new_id())

    (line,) = run_lines(ledger)

    expected = "running" if worker else "crashed" if status == "running" else status
    assert line.status == expected
    assert find_run(ledger, book.run_id) == line
    assert [lease.worker for lease in workers_of(ledger, book.run_id)] == ([worker] if worker else [])


def test_expired_lease_keeps_no_run_running(ledger: Engine) -> None:
    Book(ledger)
    long_ago = {"alive_until": NOON, "boot": None, "until_s": None}
    with begin_write(ledger) as connection:
        connection.execute(update(StoredLease).values(long_ago))

    assert [line.status for line in run_lines(ledger)] == ["crashed"]
