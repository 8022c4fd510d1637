"""Prune the ledger: remove working rows of runs that are over, and records, prompts and texts that no history names.

It goes part by part, each a transaction of its own, so that it can be stopped at any moment.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, or_, select

from db.ledger.clock import now
from db.ledger.tables import (
    Attempt,
    Generation,
    SharedText,
    StoredLease,
    StoredPrompt,
    StoredRecord,
    StoredRun,
    WorkingRow,
)
from db.session import in_parts
from db.upkeep.alone import begin_alone, temporary_index
from db.words import CANCELLED, CAPPED, COMPLETED, CRASHED, FAILED, SUSPENDED

KEPT_FOR = timedelta(days=7)
"""How long the working rows of a run that was left, or crashed, wait for it to be taken up: as long as its spools."""
HASHES_AT_ONCE = 20_000
_NAMED = re.compile(r'"\$(?:text|json)"\s*:\s*"([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class Unused:
    """Rows of a table that nothing needs any more: how many, and how many bytes their texts have."""

    table: str
    rows: int
    bytes: int


Counting = Callable[[str, int], None]
"""Is told of which table how many rows have been found so far."""


def find_unused(engine: Engine, told: Counting = lambda _table, _rows: None) -> list[Unused]:
    """Say what `prune` would remove; nothing is changed."""
    with engine.connect() as connection:
        leftovers = sum(rows for _run, rows in _leftovers(connection))
        found = [Unused(WorkingRow.__tablename__, leftovers, 0)]
        for table, unnamed in ((StoredRecord, _unnamed_records()), (StoredPrompt, _unnamed_prompts())):
            told(table.__tablename__, 0)
            body = StoredRecord.body if table is StoredRecord else StoredPrompt.request
            count, size = connection.execute(select(func.count(), func.sum(func.length(body))).where(unnamed)).one()
            found.append(Unused(table.__tablename__, count, int(size or 0)))
        told(SharedText.__tablename__, 0)
        texts = _unnamed_texts(connection)
        found.append(Unused(SharedText.__tablename__, len(texts), sum(texts.values())))
        return found


def prune(engine: Engine, told: Counting = lambda _table, _rows: None) -> list[Unused]:
    """Remove what nothing needs, and say what that was; LedgerInUseError where a run is at work, or begins to be."""
    with ExitStack() as stack:
        for table, column in (("generations", "record_hash"), ("attempts", "prompt_hash")):
            stack.enter_context(temporary_index(engine, table, column))
        found = [_prune_working_rows(engine, told)]
        found.append(_prune_by_hash(engine, StoredRecord, StoredRecord.body, _unnamed_record(), told))
        found.append(_prune_by_hash(engine, StoredPrompt, StoredPrompt.request, _unnamed_prompt(), told))
        found.append(_prune_texts(engine, told))
    return found


def _leftovers(connection: Connection) -> list[tuple[str, int]]:
    """List the runs whose working rows nobody needs, with how many they are."""
    over = StoredRun.status.in_((COMPLETED, FAILED, CANCELLED, CAPPED))
    ended = func.coalesce(StoredRun.due_at, StoredRun.ended_at, StoredRun.alive_until)
    left = and_(StoredRun.status.in_((CRASHED, SUSPENDED)), ended < now() - KEPT_FOR)
    leased = select(StoredLease.id).where(StoredLease.run_id == StoredRun.id).exists()
    statement = (
        select(WorkingRow.run_id, func.count())
        .join(StoredRun, StoredRun.id == WorkingRow.run_id)
        .where(or_(over, left), ~leased)
        .group_by(WorkingRow.run_id)
        .order_by(WorkingRow.run_id)
    )
    return [(run_id, rows) for run_id, rows in connection.execute(statement)]


def _prune_working_rows(engine: Engine, told: Counting) -> Unused:
    with engine.connect() as connection:
        runs = [run_id for run_id, _rows in _leftovers(connection)]
    removed = 0
    for run_id in runs:
        with begin_alone(engine) as connection:
            # Somebody may have taken it up since.
            if run_id in {found for found, _rows in _leftovers(connection)}:
                removed += connection.execute(delete(WorkingRow).where(WorkingRow.run_id == run_id)).rowcount
        told(WorkingRow.__tablename__, removed)
    return Unused(WorkingRow.__tablename__, removed, 0)


# Probed by an index where rows are removed, and joined as a whole where they are only counted: the index is not there.


def _unnamed_record() -> ColumnElement[bool]:
    return ~select(Generation.id).where(Generation.record_hash == StoredRecord.hash).exists()


def _unnamed_prompt() -> ColumnElement[bool]:
    generated = select(Generation.id).where(Generation.prompt_hash == StoredPrompt.hash).exists()
    asked = select(Attempt.id).where(Attempt.prompt_hash == StoredPrompt.hash).exists()
    return and_(~generated, ~asked)


def _unnamed_records() -> ColumnElement[bool]:
    return StoredRecord.hash.in_(_without(StoredRecord.hash, Generation.record_hash))


def _unnamed_prompts() -> ColumnElement[bool]:
    generated, asked = (_without(StoredPrompt.hash, named) for named in (Generation.prompt_hash, Attempt.prompt_hash))
    return and_(StoredPrompt.hash.in_(generated), StoredPrompt.hash.in_(asked))


def _without(column: Any, named: Any) -> Any:
    return select(column).except_(select(named))


def _prune_by_hash(engine: Engine, table: Any, body: Any, unnamed: ColumnElement[bool], told: Counting) -> Unused:
    removed = size = 0
    after = ""
    while True:
        with begin_alone(engine) as connection:
            end = select(table.hash).where(table.hash > after).order_by(table.hash).offset(HASHES_AT_ONCE).limit(1)
            until = connection.scalar(end)
            of_part = [table.hash > after, *([table.hash <= until] if until else [])]
            found = connection.execute(select(table.hash, func.length(body)).where(*of_part, unnamed)).all()
            _delete(connection, table, [row[0] for row in found])
        removed, size = removed + len(found), size + sum(row[1] for row in found)
        told(table.__tablename__, removed)
        if until is None:
            return Unused(table.__tablename__, removed, size)
        after = until


def _prune_texts(engine: Engine, told: Counting) -> Unused:
    with begin_alone(engine) as connection:
        texts = _unnamed_texts(connection)
        _delete(connection, SharedText, sorted(texts))
    told(SharedText.__tablename__, len(texts))
    return Unused(SharedText.__tablename__, len(texts), sum(texts.values()))


def _unnamed_texts(connection: Connection) -> dict[str, int]:
    """Return the texts that no prompt names which stays, with their lengths."""
    texts = {row[0]: row[1] for row in connection.execute(select(SharedText.hash, func.length(SharedText.body)))}
    for request in _requests(connection):
        for named in _NAMED.findall(request):
            texts.pop(named, None)
        if not texts:
            break
    return texts


def _requests(connection: Connection) -> Iterator[str]:
    statement = select(StoredPrompt.request).where(~_unnamed_prompts()).execution_options(yield_per=1000)
    with connection.execute(statement) as rows:
        yield from rows.scalars()


def _delete(connection: Connection, table: Any, hashes: Sequence[str]) -> None:
    for part in in_parts(hashes):
        connection.execute(delete(table).where(table.hash.in_(part)))
