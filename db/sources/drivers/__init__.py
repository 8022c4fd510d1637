"""Prepare a source's connections, so that they only read, and every value of the database arrives.

A driver that raises an error for a value would end the run at that row; one that rounds a value would change the prompt
unnoticed. So a value that a driver can't convert exactly arrives as the database's text. The
ledger's connections do not need this.
"""

from importlib import import_module
from typing import Any

from sqlalchemy import CursorResult, Engine, event

# The types of CHAR(n): PostgreSQL's oid, Oracle's names. MariaDB trims them itself; SQL Server's driver reports none.
_PADDED = frozenset({"1042", "DB_TYPE_CHAR", "DB_TYPE_NCHAR"})
# By dialect or by driver. Each module's `prepare` gets a connection, and a cache shared by the source's connections. A
# module is loaded only if there is a source of its kind.
_MODULES = {"psycopg": "postgresql", "mysql": "mariadb", "mariadb": "mariadb", "duckdb_engine": "duckdb"}


def prepare_source(engine: Engine) -> None:
    """Prepare each connection that a source's engine makes from now on. Other drivers need nothing."""
    module = _MODULES.get(engine.dialect.name) or _MODULES.get(engine.dialect.driver)
    if module is not None:
        prepare, known = import_module(f"{__name__}.{module}").prepare, dict[int, Any]()
        event.listen(engine, "connect", lambda connection, _entry: prepare(connection, known))


def padded_columns(result: CursorResult[Any]) -> frozenset[str]:
    """Return the names of the columns of type CHAR(n), which the database pads with blanks."""
    description = getattr(result.cursor, "description", None) or ()
    return frozenset(name for name, kind, *_ in description if str(getattr(kind, "name", kind)) in _PADDED)
