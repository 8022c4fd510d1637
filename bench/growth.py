"""Growth: how much larger a ledger becomes by runs in which no record changes.

SQLite by its used pages after a checkpoint, PostgreSQL by all of its tables, with their indexes, after a VACUUM.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import create_engine, make_url, text

from bench.meter import Sample
from bench.stage import Stage

_USED = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_TABLES = """SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname = 'public'"""


def growing(records: int, runs: int, *, on_postgres: bool) -> Callable[[Stage], Sample]:
    """Return what runs over the same records so often after a first time, and says what it added to the ledger."""

    def take(stage: Stage) -> Sample:
        stage.set_sandbox()
        ledger = stage.new_postgres() if on_postgres else stage.new_sqlite()
        stage.measure("content", records, ledger)
        before = _size(ledger)
        sample = stage.finish(stage.start("again", records, ledger, runs=runs))
        after = _size(ledger)
        sample.grown_b = (after - before) / sample.records
        sample.times_first = after / before
        return sample

    return take


def _size(url: str) -> int:
    on_postgres = make_url(url).get_backend_name() == "postgresql"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM" if on_postgres else "PRAGMA wal_checkpoint(TRUNCATE)"))
        size = int(connection.execute(text(_TABLES if on_postgres else _USED)).scalar_one())
    engine.dispose()
    return size
