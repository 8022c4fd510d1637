"""Compare reading a view of many rows into a spool with a cursor loop that stores nothing.

PostgreSQL counts the scans of the table below the view, and so the executions of the select.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from sqlalchemy import make_url

from bench.meter import Sample
from bench.stage import Stage

_TABLE = """CREATE TABLE items AS SELECT n AS id, 'Number ' || n AS name, 'tea' AS category, n / 7.0 AS price,
    DATE '2026-01-01' + n % 365 AS made, repeat('dried over embers of oak; ', 1 + n % 4) AS features
    FROM generate_series(1, {records}) AS n"""
_GOODS = "CREATE VIEW goods AS SELECT * FROM items WHERE price > 0 ORDER BY md5(id::text)"
_SCANS = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'items'"


def reading(kind: str, records: int) -> Callable[[Stage], Sample]:
    """Return a measurement that reads the view as `kind` does: `spool` or `cursor`."""

    def take(stage: Stage) -> Sample:
        url = stage.new_database()
        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            for statement in (_TABLE.format(records=records), _GOODS, "VACUUM ANALYZE items"):
                connection.execute(statement)
        before = _scans(plain)
        sample = stage.finish(stage.start(kind, records, source_url=url))
        sample.executions = _scans(plain) - before
        return sample

    return take


def _scans(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(_SCANS).fetchone()
    return int(found[0]) if found else 0
