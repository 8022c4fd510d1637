"""Measure how much a ledger grows by runs in which no record changes.

The size is SQLite's used pages after a checkpoint, or all of PostgreSQL's tables and indexes after a VACUUM.
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
    """Return a measurement that repeats a run `runs` times, and reports how much the ledger grew."""

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
