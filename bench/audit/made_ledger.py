"""Make a large ledger as some years of use would leave it: runs of several flows, template versions, failures, reuse.

`python -m bench.audit.made_ledger URL [--generations N]` fills a new ledger. Everything is drawn from a seed, so two
ledgers of one size hold the same rows, on SQLite and on PostgreSQL. Rows are inserted at revision 0003; the migrations
after it make the rest, as for a user's ledger of that time.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from typing import Any

from alembic import command
from sqlalchemy import Engine

from bench.audit.made_rows import COLUMNS, ROWS_AT_ONCE, Maker, Rows
from db.ledger.connecting import connect_ledger, upgrade
from db.ledger.migrating import alembic_config

BEFORE = "0003"
CONTENT = """
INSERT INTO content (flow, step, endpoint, record_key, generation_id, since, confirmed_run_id, confirmed_at,
                     failing_id, failing_run_id, failing_at)
SELECT n.flow, n.step, n.endpoint, n.record_key, g.id, g.created_at, g.run_id, g.created_at,
       f.id, f.run_id, f.created_at
FROM (SELECT flow, step, endpoint, record_key,
             MAX(CASE WHEN status = 'succeeded' THEN id END) AS standing, MAX(id) AS newest
      FROM generations GROUP BY flow, step, endpoint, record_key) n
LEFT JOIN generations g ON g.id = n.standing
LEFT JOIN generations f ON f.id = n.newest AND f.status <> 'succeeded'
"""


def make_ledger(url: str, generations: int) -> Engine:
    """Fill a new ledger and return its engine; ValueError if it has tables already."""
    engine = connect_ledger(url)
    with engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
    began = time.monotonic()
    parts = Maker(generations).runs()
    done = 0
    for rows in parts:
        _insert(engine, rows)
        done += len(rows.of.get("generations", ()))
        if sys.stderr.isatty() or done % 100_000 < ROWS_AT_ONCE:
            print(f"{done:,} generations, {time.monotonic() - began:.0f} s", file=sys.stderr)
    with engine.begin() as connection:
        connection.exec_driver_sql(CONTENT)
    print(f"content made, {time.monotonic() - began:.0f} s", file=sys.stderr)
    migrated = time.monotonic()
    upgrade(engine)
    print(f"migrated from {BEFORE} in {time.monotonic() - migrated:.1f} s", file=sys.stderr)
    with engine.connect() as connection:
        raw = connection.execution_options(isolation_level="AUTOCOMMIT")
        raw.exec_driver_sql("ANALYZE" if engine.dialect.name == "postgresql" else "PRAGMA optimize")
    return engine


def _insert(engine: Engine, rows: Rows) -> None:
    with engine.begin() as connection:
        cursor = connection.connection.cursor()
        for table, names in COLUMNS.items():
            columns = names.split()
            found = rows.of.get(table, [])
            if engine.dialect.name == "postgresql":
                with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                    for row in found:
                        copy.write_row(row)
                continue
            marks = ", ".join("?" * len(columns))
            plain = [[_sqlite(value) for value in row] for row in found]
            cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", plain)


def _sqlite(value: Any) -> Any:
    # As SQLAlchemy writes times: in UTC, without a zone, always with microseconds.
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


def main() -> None:
    """Make a ledger at a URL."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit.made_ledger", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="the database URL of a ledger that does not exist yet")
    parser.add_argument("--generations", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    options = parser.parse_args()
    make_ledger(options.url, options.generations).dispose()


if __name__ == "__main__":
    main()
