"""Spooling: a view of many rows read once into a spool, against a bare cursor loop that stores nothing.

On PostgreSQL, which counts how often the table below the view was scanned: that is how often the select ran.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from bench.meter import Meter, Sample
from bench.stage import Stage
from db.sources import select
from db.sources.access import open_source
from db.sources.spool import RunSpools
from db.sources.statements import Query

AT_ONCE = 500
VIEW = "SELECT id, name, category, price, made, features FROM goods"
_TABLE = """CREATE TABLE items AS SELECT n AS id, 'Number ' || n AS name, 'tea' AS category, n / 7.0 AS price,
    DATE '2026-01-01' + n % 365 AS made, repeat('dried over embers of oak; ', 1 + n % 4) AS features
    FROM generate_series(1, {records}) AS n"""
_GOODS = "CREATE VIEW goods AS SELECT * FROM items WHERE price > 0 ORDER BY md5(id::text)"
_SCANS = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'items'"


def reading(kind: str, records: int) -> Callable[[Stage], Sample]:
    """Return what reads the view as `kind` does: `spool` or `cursor`."""

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


def run_spool(meter: Meter, url: str) -> Sample:
    """Read the view as a run does: into a spool, its keys checked, and all of its pages."""
    engine = open_source(url)
    with tempfile.TemporaryDirectory() as folder:
        spools = RunSpools(Path(folder), "run")
        meter.start()
        select.spool(engine, Query("bench", VIEW, ("id",), {}), lambda: spools.writing("goods"))
        read = sum(len(page) for page in spools.open("goods").pages(AT_ONCE))
        sample = Sample(records=read, succeeded=read)
        meter.read(sample)
        spools.close()
    return sample


def run_cursor(meter: Meter, url: str) -> Sample:
    """Read the view with the driver alone, storing nothing."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    meter.start()
    sample = Sample()
    with psycopg.connect(plain) as connection, connection.cursor("bench") as cursor:
        cursor.execute(VIEW)
        while rows := cursor.fetchmany(AT_ONCE):
            sample.records += len(rows)
    sample.succeeded = sample.records
    meter.read(sample)
    return sample


def _scans(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(_SCANS).fetchone()
    return int(found[0]) if found else 0
