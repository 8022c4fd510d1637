"""Insert rows that may be in the ledger already."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from db.columns import Base


def insert_missing(table: str, dialect: str) -> sa.Insert:
    """Return a statement that inserts only missing rows, so that a commit whose reply was lost can be repeated."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(Base.metadata.tables[table]).on_conflict_do_nothing()
