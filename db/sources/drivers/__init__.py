"""Prepare a source's connections: each is only read, and every value that it can hold arrives.

A driver that raises at one value ends a run at that row, and one that rounds it changes the prompt unseen: what a
driver can't turn into a Python value arrives as the database's text. The ledger's connections are not prepared here.
"""

from importlib import import_module
from typing import Any

from sqlalchemy import CursorResult, Engine, event

# The types of CHAR(n): PostgreSQL's oid, Oracle's names. MariaDB trims its own; SQL Server's driver does not tell them.
_PADDED = frozenset({"1042", "DB_TYPE_CHAR", "DB_TYPE_NCHAR"})
# By dialect or by driver; `prepare` of each is called with a connection, and with what it has found out by the source's
# earlier ones. Each module is loaded only where there is a source of its kind.
_MODULES = {"psycopg": "postgresql", "mysql": "mariadb", "mariadb": "mariadb", "duckdb_engine": "duckdb"}


def prepare_source(engine: Engine) -> None:
    """Prepare each connection that a source's engine makes from now on; drivers not known here are left as they are."""
    module = _MODULES.get(engine.dialect.name) or _MODULES.get(engine.dialect.driver)
    if module is not None:
        prepare, known = import_module(f"{__name__}.{module}").prepare, dict[int, Any]()
        event.listen(engine, "connect", lambda connection, _entry: prepare(connection, known))


def padded_columns(result: CursorResult[Any]) -> frozenset[str]:
    """Name the columns whose type is CHAR(n), which the database pads with blanks."""
    description = getattr(result.cursor, "description", None) or ()
    return frozenset(name for name, kind, *_ in description if str(getattr(kind, "name", kind)) in _PADDED)
