"""Insert rows that may be in the ledger already."""

from functools import cache

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from db.columns import Base
from db.tables.prepared import prepared


def insert_missing(table: str, dialect: str) -> sa.Insert:
    """Return a statement that inserts only missing rows, so that a commit whose reply was lost can be repeated."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(Base.metadata.tables[table]).on_conflict_do_nothing()


@cache
def missing_rows(table: str, columns: tuple[str, ...], dialect: str) -> sa.TextClause:
    """Return `insert_missing` for rows with these columns, made once."""
    return prepared(insert_missing(table, dialect), dialect, columns)
