"""Prune the ledger: remove working rows of ended runs, and records, prompts and texts to which no history refers.

Each table is its own transaction, so that pruning can be stopped at any moment.
"""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, or_, select

from db.clock import now
from db.rollups.marks import KEPT_FOR
from db.session import in_parts
from db.tables import (
    Attempt,
    Generation,
    SharedText,
    StoredLease,
    StoredPrompt,
    StoredRecord,
    StoredRun,
    WorkingRow,
)
from db.upkeep.alone import begin_exclusive, temporary_index
from db.upkeep.parts import Begin
from db.words import CRASHED, NOT_OVER, SUSPENDED

_NAMED = re.compile(r'"\$(?:text|json)"\s*:\s*"([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class Unused:
    """The unneeded rows of a table: their number, and the bytes of their texts."""

    table: str
    rows: int
    bytes: int


ReportTable = Callable[[str], None]
"""Called with the name of each table before it is searched."""


def find_unused(engine: Engine, report: ReportTable = lambda _table: None) -> list[Unused]:
    """Count the rows that `prune` would remove; changes nothing."""
    return _go_through(engine.connect, report, dry=True)


def prune(engine: Engine, report: ReportTable = lambda _table: None) -> list[Unused]:
    """Remove the unneeded rows, and return their counts; LedgerInUseError if a run is active or begins."""
    with ExitStack() as stack:
        for table, column in (("generations", "record_hash"), ("attempts", "prompt_hash")):
            stack.enter_context(temporary_index(engine, table, column))
        return _go_through(partial(begin_exclusive, engine), report, dry=False)


def _go_through(begin: Begin, report: ReportTable, *, dry: bool) -> list[Unused]:
    with begin() as connection:
        found = [Unused(WorkingRow.__tablename__, count_leftovers(connection), 0)]
        if not dry:
            connection.execute(delete(WorkingRow).where(_is_left_over()))
    for table, find in ((StoredRecord, _records), (StoredPrompt, _prompts), (SharedText, _texts)):
        report(table.__tablename__)
        with begin() as connection:
            unnamed = find(connection)
            for part in in_parts([] if dry else list(unnamed)):
                connection.execute(delete(table).where(table.hash.in_(part)))
        found.append(Unused(table.__tablename__, len(unnamed), sum(unnamed.values())))
    return found


def count_leftovers(connection: Connection) -> int:
    """Count the working rows that no run needs."""
    return connection.scalar(select(func.count()).select_from(WorkingRow).where(_is_left_over())) or 0


def _is_left_over() -> ColumnElement[bool]:
    """Select the working rows of runs without a lease that have ended, or that crashed or were due too long ago."""
    over = StoredRun.status.not_in(NOT_OVER)
    ended = func.coalesce(StoredRun.due_at, StoredRun.ended_at, StoredRun.alive_until)
    expired = and_(StoredRun.status.in_((CRASHED, SUSPENDED)), ended < now() - KEPT_FOR)
    leased = select(StoredLease.id).where(StoredLease.run_id == StoredRun.id).exists()
    return WorkingRow.run_id.in_(select(StoredRun.id).where(or_(over, expired), ~leased))


# Each of these returns the hashes of rows to which no history refers, with the lengths of their texts.


def _records(connection: Connection) -> dict[str, int]:
    return _unnamed(connection, StoredRecord.hash, StoredRecord.body, Generation.record_hash)


def _prompts(connection: Connection) -> dict[str, int]:
    return _unnamed(connection, StoredPrompt.hash, StoredPrompt.request, Generation.prompt_hash, Attempt.prompt_hash)


def _unnamed(connection: Connection, own: Any, body: Any, *names: Any) -> dict[str, int]:
    unnamed = select(own).except_(*map(select, names))
    return {row[0]: row[1] for row in connection.execute(select(own, func.length(body)).where(own.in_(unnamed)))}


def _texts(connection: Connection) -> dict[str, int]:
    texts = {row[0]: row[1] for row in connection.execute(select(SharedText.hash, func.length(SharedText.body)))}
    go = _prompts(connection)
    requests = select(StoredPrompt.hash, StoredPrompt.request).execution_options(yield_per=1000)
    with connection.execute(requests) as rows:
        for prompt, request in rows:
            for named in _NAMED.findall(request) if prompt not in go else ():
                texts.pop(named, None)
            if not texts:
                break
    return texts
