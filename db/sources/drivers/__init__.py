"""Read every value that a source can hold: what a driver can't turn into a Python value arrives as the database's text.

A driver that raises at one value ends a run at that row, and one that rounds it changes the prompt unseen. Only
connections to sources are prepared here, not the ledger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, event

from db.sources.drivers import duckdb, mariadb, postgresql

# The types of CHAR(n): PostgreSQL's oid, Oracle's names. MariaDB trims its own; SQL Server's driver does not tell them.
_PADDED = frozenset({"1042", "DB_TYPE_CHAR", "DB_TYPE_NCHAR"})
_PREPARE = {"psycopg": postgresql.prepare, "pymysql": mariadb.prepare, "duckdb_engine": duckdb.prepare}


def prepare_source(engine: Engine) -> None:
    """Prepare each connection that a source's engine makes from now on; drivers not known here are left as they are."""
    prepare = _PREPARE.get(engine.dialect.driver)
    if prepare is not None:
        event.listen(engine, "connect", prepare(engine))


def padded_columns(description: Sequence[Sequence[Any]] | None) -> frozenset[str]:
    """Name the columns of a DBAPI cursor's description whose type is CHAR(n), which the database pads with blanks."""
    return frozenset(column[0] for column in description or () if str(getattr(column[1], "name", column[1])) in _PADDED)
