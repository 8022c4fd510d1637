"""A ledger of an earlier release migrates with all its rows, and shows the same figures afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from db.database_errors import LedgerInUseError
from db.ledger.connecting import check, connect_ledger, upgrade
from db.readers.figures import usage
from db.session import begin_write
from tests.db.earlier.ledgers import upgrade_to, views_of
from tests.db.rows import HEAD, sha

MOMENT = datetime(2026, 11, 1, 12, tzinfo=UTC)
ENDINGS: tuple[tuple[str | None, int | None, float | None], ...] = (
    (None, 200, 0.0123456789),
    (None, 200, None),
    ("connection", None, None),
    ("timeout", None, None),
    ("abandoned", None, None),
    ("crashed", None, None),
    ("http_502", 502, None),
    ("rate_limit_error", 429, None),
    ("not_sent", None, None),
    ("connect", None, None),
)


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Engine]:
    """A ledger as the first release made it, with a run that ended and requests that ended in every way."""
    engine = connect_ledger(empty_database_url)
    upgrade_to(engine, "0001")
    with begin_write(engine) as connection:
        fill(connection)
    yield engine
    engine.dispose()


def add(connection: Connection, table: str, **row: Any) -> None:
    columns = ", ".join(row)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({', '.join(f':{name}' for name in row)})"), row)


def fill(connection: Connection) -> None:
    add_run(connection, "run 1", "completed", MOMENT)
    add(connection, "prompts", hash=sha("p"), model="m", variant=0, request="{}", created_at=MOMENT)
    add(connection, "records", hash=sha("r"), body="{}")
    for number, (error, status, cost) in enumerate(ENDINGS):
        answered = error is None
        add(
            connection,
            "attempts",
            id=f"attempt {number}",
            run_id="run 1",
            prompt_hash=sha("p"),
            generation_id=f"generation {number}",
            ordinal=1,
            kind="call",
            started_at=MOMENT,
            ended_at=MOMENT,
            error_type=error,
            http_status=status,
            model="claude-sonnet-4-6" if answered else None,
            input_tokens=60 if answered else None,
            output_tokens=100 if answered else None,
            cost_usd=cost,
        )
        add(
            connection,
            "generations",
            id=f"generation {number}",
            run_id="run 1",
            flow="note",
            step="note",
            endpoint="anthropic",
            record_key=str(number),
            record_hash=sha("r"),
            template_hash=sha("t"),
            prompt_hash=sha("p"),
            status="succeeded" if answered else "failed",
            origin="live",
            output='{"line":"Tea"}' if answered else None,
            output_hash=sha("Tea") if answered else None,
            created_at=MOMENT,
        )


def add_run(connection: Connection, identifier: str, status: str, alive_until: datetime) -> None:
    add(
        connection,
        "runs",
        id=identifier,
        flow="note",
        trigger="command",
        parameters="{}",
        code_version="0",
        endpoint="anthropic",
        mode="live",
        started_at=MOMENT,
        status=status,
        process="host/1/1",
        alive_until=alive_until,
    )


def test_ledger_of_the_first_release_keeps_its_figures(old: Engine) -> None:
    before = views_of(old)
    upgrade(old)
    assert check(old) == HEAD
    assert views_of(old) == before
    found = usage(old, "run 1")
    assert (found.requests, found.perhaps_billed, found.unpriced) == (8, 4, 1)
    with old.connect() as connection:
        assert connection.execute(text("SELECT epoch, lease_boot, lease_until_s FROM runs")).one() == (1, None, None)
        assert set(connection.scalars(text("SELECT likely_usd FROM usage_by_day"))) == {None}


def test_view_that_users_built_on_ours_survives(old: Engine) -> None:
    with old.begin() as connection:
        connection.execute(text("CREATE VIEW mine AS SELECT day, cost_usd FROM usage_by_day"))
    upgrade(old)
    with old.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM mine")) == 2


@pytest.mark.parametrize("status", ["running", "completed"])
def test_upgrade_is_refused_while_a_run_is_active(old: Engine, status: str) -> None:
    with begin_write(old) as connection:
        add_run(connection, "run 2", status, datetime.now(UTC) + timedelta(minutes=1))
    if status == "completed":
        upgrade(old)
        return
    with pytest.raises(LedgerInUseError, match=r"the run run 2 of note is active\. Stop it"):
        upgrade(old)
    with begin_write(old) as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(text("UPDATE runs SET alive_until = :past WHERE id = 'run 2'"), {"past": past})
    upgrade(old)
    assert check(old) == HEAD
