"""Exclusive transactions, which write only while no run is active and keep runs from beginning until they end."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from db.database_errors import LedgerInUseError
from db.ledger import leases
from db.session import begin_write, readable_url


@contextmanager
def begin_exclusive(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction during which no lease can be taken or renewed; LedgerInUseError if a run is active."""
    with begin_write(engine) as connection:
        if connection.dialect.name == "postgresql":
            # This mode also excludes another transaction of this kind. SQLite has one writer anyway.
            connection.execute(text("LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE"))
        _refuse_while_active(connection)
        yield connection


def _refuse_while_active(connection: Connection) -> None:
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
    """Create an index and drop it after the block, because each delete makes the database search this column.

    An index that a killed process left is reused, and dropped too.
    """
    name = f"ix_{table}_{column}_upkeep"
    with begin_exclusive(engine) as connection:
        connection.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({column})"))
    try:
        yield
    finally:
        with begin_write(engine) as connection:
            connection.execute(text(f"DROP INDEX IF EXISTS {name}"))
