"""Migration 0004 writes what today's code writes when a run closes, for the ledgers of all earlier releases."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Engine, select, update

from db.clock import new_id, now
from db.ledger import leases
from db.ledger.connecting import connect_ledger, upgrade
from db.ledger.lifecycle import begin_step, suspend_run
from db.ledger.migrating import alembic_config
from db.ledger.rows import StepRow, WriteBatch
from db.ledger.writing import write
from db.readers.figures import cost_reused
from db.rollups.grouped import ROLLUPS
from db.rollups.marks import roll_up_ended
from db.session import begin_write
from db.tables import RolledUp, StoredLease, StoredRun, StoredStep
from db.upkeep.recounting import find_wrong_rollups
from tests.conftest import drop_postgres_database, new_postgres_database
from tests.db.earlier.ledgers import earlier_files, read_earlier
from tests.db.rows import DAY, Book, settled_row
from tests.db.test_leases import ELSEWHERE, run_out
from tests.db.test_rollups import NO_ANSWER, require_equal

FILES = [
    pytest.param(file, id=file.stem, marks=[pytest.mark.postgres] if "postgresql" in file.stem else [])
    for file in earlier_files()
]


def migrate_again(ledger: Engine) -> None:
    """Take the ledger back to revision 0003, and migrate it."""
    with begin_write(ledger) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    upgrade(ledger)


def stored(ledger: Engine) -> dict[str, set[tuple[Any, ...]]]:
    with ledger.connect() as connection:
        tables: dict[str, Any] = {each.__tablename__: select(each.__table__) for each in ROLLUPS}
        tables["rolled_up"] = select(RolledUp.run_id)
        tables["run_steps"] = select(StoredStep.__table__)
        return {name: {tuple(row) for row in connection.execute(each)} for name, each in tables.items()}


@pytest.mark.parametrize("file", FILES)
def test_rollups_of_a_ledger_of_an_earlier_commit_are_those_of_today(
    file: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    earlier = read_earlier(file)
    is_file = isinstance(earlier.ledger, list)
    server = "" if is_file else request.getfixturevalue("postgres_server")
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}" if is_file else new_postgres_database(server)
    earlier.put(url)
    engine = connect_ledger(url)
    upgrade(engine)

    found = find_wrong_rollups(engine)
    assert (found.runs > 5, found.first) == (True, [])
    require_equal(engine)

    engine.dispose()
    if not is_file:
        drop_postgres_database(server, url)


def test_migration_writes_what_closing_a_run_writes(ledger: Engine) -> None:
    first = Book(ledger)
    begin_step(ledger, first.run_id, StepRow("product_copy", total=3))
    a = first.add("a", settled={"cost_usd": Decimal("0.0098257501"), "cache_read_tokens": 900, "latency_ms": 1200})
    b = first.add("b", settled={"cost_usd": Decimal("0.1"), "service_tier": "batch", "cache_creation_1h_tokens": 4001})
    first.add("b", settled={"cost_usd": None}, created_at=DAY + timedelta(days=1))
    longest = dict.fromkeys(("model", "service_tier", "inference_geo", "speed"), "x" * 150)
    first.add("c", settled=longest | dict.fromkeys(("input_tokens", "cache_read_tokens"), 2**31 - 1))
    batch = WriteBatch()
    for error in ("timeout", "proxy", "connect", "overloaded_error"):
        lost = first.attempt(batch, error, new_id(), likely_cost_usd=Decimal("0.0123456789"))
        batch.settled.append(settled_row(lost, **NO_ANSWER | {"error_type": error, "http_status": 429}))
    write(ledger, batch)
    first.close()
    for kind in ("closed", "crashed", "suspended", "open"):
        book = Book(ledger, flow=kind if kind == "open" else "product_copy")
        begin_step(ledger, book.run_id, StepRow("product_copy", total=3))
        book.reuse("b", b)
        book.confirm("a", a)
        if kind == "closed":
            book.close()
        elif kind == "suspended":
            suspend_run(ledger, book.lease, "a batch", now())
        elif kind == "crashed":
            with begin_write(ledger) as connection:
                connection.execute(update(StoredLease).values(process=ELSEWHERE))
            run_out(ledger, book.lease.id)
            leases.end_lapsed(ledger, except_lease="")
        else:
            # A killed process: migrating would be refused while its lease is valid.
            run_out(ledger, book.lease.id)
            with begin_write(ledger) as connection:
                connection.execute(update(StoredRun).where(StoredRun.id == book.run_id).values(alive_until=now()))
        if kind == "closed":
            # Later runs confirm the same record, and the migration can't know that this one did.
            assert cost_reused(ledger, book.run_id) == Decimal("0.1098257501")
            closed = book.run_id
    roll_up_ended(ledger)
    before = stored(ledger)
    assert len(before["rolled_up"]) == 3

    migrate_again(ledger)

    after = stored(ledger)
    saved = before.pop("run_steps"), after.pop("run_steps")
    assert after == before
    assert {row for row in saved[0] if row[0] != closed} == {row for row in saved[1] if row[0] != closed}
    assert cost_reused(ledger, closed) == Decimal("0.1")
    require_equal(ledger)
