"""Transactions that write only while no run is at work on the ledger, and keep runs from beginning until they end."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from db.database_errors import LedgerInUseError
from db.ledger import leases
from db.session import begin_write, readable_url


@contextmanager
def begin_alone(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that writes, while nobody takes or renews a lease; LedgerInUseError where one lives."""
    with begin_write(engine) as connection:
        if connection.dialect.name == "postgresql":
            # Also against another who does the same. SQLite has one writer anyway.
            connection.execute(text("LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE"))
        refuse_while_at_work(connection)
        yield connection


def refuse_while_at_work(connection: Connection) -> None:
    """Raise LedgerInUseError where a run is at work on the ledger."""
    active = leases.living(connection)
    if active:
        run = active[0]
        raise LedgerInUseError(
            f"The ledger {readable_url(connection.engine.url)} is in use: the run {run.run_id} of {run.flow} is "
            "active. Stop it or wait until it ends, then run the same command again to continue. "
            "(A crashed run may count as active for two minutes.)"
        )


@contextmanager
def temporary_index(engine: Engine, table: str, column: str) -> Iterator[None]:
    """Have an index for as long as the block lasts: the database looks in each column that may refer to a deleted row.

    One that a killed process left is used, and dropped.
    """
    name = f"ix_{table}_{column}_upkeep"
    with begin_alone(engine) as connection:
        connection.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({column})"))
    try:
        yield
    finally:
        with begin_write(engine) as connection:
            connection.execute(text(f"DROP INDEX IF EXISTS {name}"))
