"""The smallest valid rows of a ledger: a run, and generations with the rows that they refer to."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, insert, select, update

from db.clock import new_id, now
from db.identity import this_process
from db.ledger.leases import Lease, take
from db.ledger.lifecycle import begin_or_resume, close_run
from db.ledger.refused_rows import storable
from db.ledger.rows import (
    ConfirmedRow,
    GenerationRow,
    OpenedRow,
    PromptRow,
    RecordRow,
    RunRow,
    SettledRow,
    TemplateRow,
    WriteBatch,
    values_of,
)
from db.ledger.writing import add_templates, write
from db.readers.audit.filters import RunFilter
from db.readers.audit.overviews import FigureLine, figures_by_each
from db.readers.audit.run_lists import list_runs_page
from db.readers.figures import RunLine
from db.session import begin_write
from db.tables import StoredRun, WorkingRow
from db.tables.revisions import MIGRATIONS

HEAD = ScriptDirectory(str(MIGRATIONS)).get_current_head()
"""The newest revision of a ledger."""
DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def error_of_sqlite(code: int) -> sqlite3.OperationalError:
    """What SQLite's driver raises for one of its result codes."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    return error


def run_row(**own: Any) -> RunRow:
    row = RunRow(
        id=new_id(),
        flow="product_copy",
        trigger="command",
        parameters={},
        code_version="0",
        endpoint="sandbox",
        mode="live",
        started_at=now(),
        status="running",
        process="host/1/1",
        alive_until=now() + timedelta(minutes=2),
    )
    return replace(row, **own)


def start_run(ledger: Engine, run: RunRow, lease_id: str) -> Lease:
    """Write a run's row, even if its flow run has other runs, and its main lease if it is running."""
    with begin_write(ledger) as connection:
        connection.execute(insert(StoredRun).values(values_of(storable(run))))
        if run.status == "running":
            return take(connection, run.id, "main", lease_id, run.process)
    return Lease(lease_id, run.id, "main")


def take_up(ledger: Engine, run_id: str, lease_id: str) -> Lease:
    """Resume a run as another process of its flow run does."""
    with ledger.begin() as connection:
        flow_run = connection.scalar(select(StoredRun.prefect_flow_run_id).where(StoredRun.id == run_id)) or run_id
        its_row = update(StoredRun).where(StoredRun.id == run_id)
        connection.execute(its_row.values(prefect_flow_run_id=flow_run))
        row = connection.execute(select(StoredRun.__table__).where(StoredRun.id == run_id)).one()
    again = run_row(flow=row.flow, endpoint=row.endpoint, prefect_flow_run_id=flow_run, process=this_process())
    return begin_or_resume(ledger, again, lease_id)


def count_open(ledger: Engine, run_id: str, step: str) -> tuple[int, int]:
    """Count the keys of a step that are free, and those that helpers have taken."""
    is_open = (WorkingRow.run_id == run_id, WorkingRow.step == step, WorkingRow.status.is_(None))
    with ledger.connect() as connection:
        whole, taken = connection.execute(select(func.count(), func.count(WorkingRow.lease_id)).where(*is_open)).one()
    return whole - taken, taken


def settled_row(attempt_id: str, **own: Any) -> SettledRow:
    """The end of an attempt: by default an answer with 100 input tokens, 60 output tokens and a cost of one cent."""
    row = SettledRow(
        attempt_id=attempt_id,
        ended_at=DAY,
        http_status=200,
        model="claude-sonnet-4-6",
        stop_reason="end_turn",
        input_tokens=60,
        output_tokens=100,
        cost_usd=Decimal("0.01"),
    )
    return replace(row, **own)


class Book:
    """Writes generations of one run with all rows that they refer to."""

    def __init__(self, ledger: Engine, **run: Any) -> None:
        self.ledger = ledger
        self.run = run_row(**run)
        self.lease = start_run(ledger, self.run, new_id())
        template = TemplateRow(
            hash=sha("template"),
            name="product_copy",
            sources={"product_copy.md.j2": "Write."},
            first_seen_at=now(),
        )
        add_templates(ledger, [template])

    @property
    def run_id(self) -> str:
        return self.run.id

    def attempt(self, batch: WriteBatch, prompt: str, generation_id: str, **own: Any) -> str:
        """Add an attempt that is about to be sent, and its prompt, to a batch; return its id."""
        batch.prompts[sha(prompt)] = PromptRow(
            hash=sha(prompt),
            model="claude-sonnet-4-6",
            variant=0,
            request='{"model":"claude-sonnet-4-6"}',
            created_at=DAY,
        )
        row = OpenedRow(
            id=new_id(),
            run_id=self.run_id,
            prompt_hash=sha(prompt),
            generation_id=generation_id,
            ordinal=1,
            kind="call",
            started_at=DAY,
            lease_id=self.lease.id,
        )
        row = replace(row, **own)
        batch.opened.append(row)
        return row.id

    def generation(self, batch: WriteBatch, key: str, *, record: str = "{}", **own: Any) -> str:
        """Add a generation and its record to a batch; return its id."""
        batch.records[sha(record)] = RecordRow(sha(record), record)
        row = GenerationRow(
            id=new_id(),
            run_id=self.run_id,
            flow=self.run.flow,
            step="product_copy",
            endpoint=self.run.endpoint,
            record_key=key,
            record_hash=sha(record),
            template_hash=sha("template"),
            prompt_hash=sha(key),
            status="succeeded",
            origin="live",
            output={"title": f"About {key}"},
            output_hash=sha(f"About {key}"),
            created_at=DAY,
        )
        row = replace(row, **own)
        batch.generations.append(row)
        return row.id

    def add(self, key: str, *, settled: dict[str, Any] | None = None, **own: Any) -> str:
        """Write a generation with one request; return its id."""
        batch, generation_id = WriteBatch(), new_id()
        attempt_id = self.attempt(batch, str(own.get("prompt", key)), generation_id)
        batch.settled.append(settled_row(attempt_id, **(settled or {})))
        own.pop("prompt", None)
        self.generation(batch, key, **({"id": generation_id} | own))
        write(self.ledger, batch)
        return generation_id

    def reuse(self, key: str, source_id: str, **own: Any) -> str:
        """Write a generation with an answer from the ledger; return its id."""
        batch = WriteBatch()
        cached = {"origin": "cache", "output": None, "source_generation_id": source_id}
        generation_id = self.generation(batch, key, **(cached | own))
        write(self.ledger, batch)
        return generation_id

    def confirm(self, key: str, generation_id: str, **own: Any) -> None:
        """Confirm a record as unchanged: its outcome is still current."""
        row = ConfirmedRow(
            run_id=self.run_id,
            step="product_copy",
            record_key=key,
            status="succeeded",
            generation_id=generation_id,
            confirmed_at=DAY,
        )
        write(self.ledger, WriteBatch(confirmed=[replace(row, **own)]))

    def close(self) -> None:
        """Close the run."""
        close_run(self.ledger, self.lease, "completed", now())


def run_lines(ledger: Engine, limit: int = 1_000, **wanted: Any) -> list[RunLine]:
    """List runs as the audit room does, the newest first."""
    return list_runs_page(ledger, RunFilter(**wanted), limit=limit).lines


def figures_by(ledger: Engine, by: Sequence[str]) -> list[FigureLine]:
    """Read the figures of one grouping."""
    return figures_by_each(ledger, [by])[0]
