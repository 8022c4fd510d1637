"""Load the ledgers of earlier commits that make.py has made, and read them by the views that people query."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import Engine, text, update

from db.ledger.connecting import connect_ledger
from db.ledger.migrating import alembic_config
from db.session import begin_write
from db.tables import StoredRun
from db.words import RUNNING

FOLDER = Path(__file__).resolve().parent
VIEWS = {
    "usage_by_day": "day, flow, endpoint, model, requests, input_tokens, output_tokens, cache_creation_tokens, "
    "cache_read_tokens, cost_usd, unpriced, perhaps_billed",
    "current_content": "flow, step, endpoint, record_key, generation_id, run_id, origin, output, output_hash, "
    "record_hash, template_hash, prompt_hash, written_by_generation_id, written_at, confirmed_at",
}
"""The columns of the first release, except the age, which changes between two reads."""
_PUT = "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, CAST(:rows AS json))"
_KILLED = update(StoredRun).where(StoredRun.status == RUNNING)


@dataclass(frozen=True)
class EarlierLedger:
    """A file of this folder: the commit and its revision, the run that was killed, the records that it worked on.

    `history` is what the commit's own `presswork history RUN --json` said of each run.
    """

    commit: str
    revision: str
    killed: str
    items: list[list[str]]
    tickets: list[list[str]]
    history: dict[str, dict[str, Any]]
    ledger: Any

    def put(self, url: str) -> None:
        """Make the ledger in an empty database; the run was killed longer ago than a lease lasts."""
        if isinstance(self.ledger, list):
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
                database.executescript("\n".join(self.ledger))
        engine = connect_ledger(url)
        if not isinstance(self.ledger, list):
            upgrade_to(engine, self.revision)
        with begin_write(engine) as connection:
            if not isinstance(self.ledger, list):
                for table, rows in self.ledger.items():
                    connection.execute(text(_PUT.format(table=table)), {"rows": json.dumps(rows)})
            connection.execute(_KILLED.values(alive_until=datetime.now(UTC) - timedelta(minutes=1)))
        engine.dispose()


def earlier_files() -> list[Path]:
    """Name the files: one for each commit and kind of database."""
    return sorted(FOLDER.glob("*.json"))


def read_earlier(file: Path) -> EarlierLedger:
    """Read a file."""
    return EarlierLedger(**json.loads(file.read_text(encoding="utf-8")))


def upgrade_to(engine: Engine, revision: str) -> None:
    """Make the tables of a revision."""
    with begin_write(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def views_of(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Read the views that people query."""
    with engine.connect() as connection:
        return {
            view: sorted((tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {view}"))), key=repr)
            for view, columns in VIEWS.items()
        }
