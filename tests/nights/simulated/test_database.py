"""The ledger of a night fails before a transaction, in the middle of one, and at its commit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from db.machine import here, use
from db.session import begin_write
from tests.nights.simulated import database
from tests.nights.simulated.database import Ledger, Outage
from tests.nights.simulated.world import World


async def _no_work() -> None:
    """Do nothing."""


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which one process is at work."""
    before = here()
    world = World(1)
    world.start("p0", world.host("machine A"), _no_work)
    yield world
    world.forget()
    use(before)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(Path(tmp_path_factory.mktemp("ledger")) / "ledger.sqlite")


def begin(ledger: Ledger, world: World, *outages: Outage) -> None:
    """Begin a night, open a connection in peace, and wait until the outages begin."""
    ledger.begin(world, outages, ())
    assert rows(ledger) == 0
    world.now = 1.0


def add(connection: Connection, number: int) -> None:
    connection.execute(text(f"INSERT INTO night_refused VALUES ('row {number}')"))


def failures(ledger: Ledger, world: World, tries: int = 60) -> set[str]:
    """Write two rows in each of many transactions; returns what failed, as 'SQL: message'."""
    told = set()
    for _try in range(tries):
        try:
            with begin_write(ledger.engine) as connection:
                add(connection, 1)
                add(connection, 2)
        except OperationalError as error:
            where = next((line.rpartition(" ")[2] for line in world.story if "in a transaction" in line), "BEGIN")
            told.add(f"{where}: {error.orig}")
            world.story.clear()
    return told


def rows(ledger: Ledger) -> int:
    with ledger.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM night_refused")).scalar_one())


@pytest.mark.parametrize(
    ("trouble", "message", "places"),
    [
        ("unavailable", "unable to open database file", {"BEGIN", "INSERT", "COMMIT"}),
        ("locked", "database is locked", {"BEGIN", "INSERT", "COMMIT"}),
        ("full", "database or disk is full", {"INSERT", "COMMIT"}),
    ],
)
def test_nothing_is_committed_while_the_ledger_is_in_trouble(
    ledger: Ledger, world: World, trouble: str, message: str, places: set[str]
) -> None:
    begin(ledger, world, Outage(trouble, 1.0, 500.0))
    assert failures(ledger, world) == {f"{place}: {message}" for place in places}
    world.now = 500.0
    assert rows(ledger) == 0
    assert failures(ledger, world, 1) == set()
    assert rows(ledger) == 2


def test_full_ledger_can_be_read(ledger: Ledger, world: World) -> None:
    begin(ledger, world, Outage("full", 1.0, 500.0))
    for _try in range(20):
        with begin_write(ledger.engine) as connection:
            connection.execute(text("SELECT * FROM night_refused"))


def test_transaction_that_begins_in_trouble_may_read_to_its_end(
    ledger: Ledger, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "NOT_BEGUN", 0.0)
    begin(ledger, world, Outage("unavailable", 1.0, 500.0))
    ended = 0
    for _try in range(20):
        try:
            rows(ledger)
            ended += 1
        except OperationalError:
            pass
    assert 0 < ended < 20


def test_statement_and_commit_fail_by_their_numbers(ledger: Ledger, world: World) -> None:
    begin(ledger, world)
    ledger.fail_at_statement["p0"] = ledger.statements["p0"] + 3
    ledger.fail_at_commit["p0"] = 1
    assert failures(ledger, world, 1) == {"INSERT: unable to open database file"}
    assert failures(ledger, world, 1) == {"COMMIT: unable to open database file"}
    assert rows(ledger) == 0
    assert failures(ledger, world, 1) == set()
