"""Which revision of the tables a ledger has, and which this code knows.

Alembic, which makes the tables (db/ledger/migrating.py), can tell both. But most commands only ask, and it takes long
to load.
"""

from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

MIGRATIONS = Path(__file__).parent.parent / "migrations"
_STORED = table("alembic_version", column("version_num"))


@lru_cache(maxsize=1)
def known_revisions() -> tuple[str, ...]:
    """Return the revisions that this code knows, the newest last. Each begins the name of its file."""
    return tuple(sorted(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")))


def stored_revision(connection: Connection) -> str | None:
    """Return the revision of a ledger's tables; None if it has none yet."""
    if not inspect(connection).has_table(_STORED.name):
        return None
    found: str | None = connection.scalar(select(_STORED.c.version_num))
    return found
