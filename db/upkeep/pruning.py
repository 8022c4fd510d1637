"""Prune the ledger: remove working rows of runs that are over, and records, prompts and texts that no history names.

It goes part by part, each a transaction of its own, so that it can be stopped at any moment.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from db.words import CRASHED, NOT_OVER, SUSPENDED

KEPT_FOR = timedelta(days=7)
"""How long the working rows of a run that was left, or crashed, wait for it to be taken up: as long as its spools."""
HASHES_AT_ONCE = 20_000
_NAMED_BY: Mapping[Any, Sequence[Any]] = {
    StoredRecord: (Generation.record_hash,),
    StoredPrompt: (Generation.prompt_hash, Attempt.prompt_hash),
}
"""The columns of history that name rows by their hashes."""
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
        found = [Unused(WorkingRow.__tablename__, count_leftovers(connection), 0)]
        for table in (StoredRecord, StoredPrompt, SharedText):
            told(table.__tablename__, 0)
            unnamed = _unnamed_texts(connection) if table is SharedText else _unnamed(connection, table)
            found.append(Unused(table.__tablename__, len(unnamed), sum(unnamed.values())))
        return found


def prune(engine: Engine, told: Counting = lambda _table, _rows: None) -> list[Unused]:
    """Remove what nothing needs, and say what that was; LedgerInUseError where a run is at work, or begins to be."""
    with ExitStack() as stack:
        for table, column in (("generations", "record_hash"), ("attempts", "prompt_hash")):
            stack.enter_context(temporary_index(engine, table, column))
        found = [_prune_working_rows(engine), *(_prune_by_hash(engine, table, told) for table in _NAMED_BY)]
        return [*found, _prune_texts(engine, told)]


def count_leftovers(connection: Connection) -> int:
    """Count the working rows that nobody needs."""
    return connection.scalar(select(func.count()).select_from(WorkingRow).where(_is_left_over())) or 0


def _is_left_over() -> ColumnElement[bool]:
    """Select the working rows of runs that are over, or were left for long, and that nobody works on."""
    over = StoredRun.status.not_in(NOT_OVER)
    ended = func.coalesce(StoredRun.due_at, StoredRun.ended_at, StoredRun.alive_until)
    left = and_(StoredRun.status.in_((CRASHED, SUSPENDED)), ended < now() - KEPT_FOR)
    leased = select(StoredLease.id).where(StoredLease.run_id == StoredRun.id).exists()
    return WorkingRow.run_id.in_(select(StoredRun.id).where(or_(over, left), ~leased))


def _prune_working_rows(engine: Engine) -> Unused:
    with begin_alone(engine) as connection:
        removed = connection.execute(delete(WorkingRow).where(_is_left_over())).rowcount
    return Unused(WorkingRow.__tablename__, removed, 0)


def _unnamed(connection: Connection, table: Any, after: str = "", until: str | None = None) -> dict[str, int]:
    """Return the hashes of records or prompts that no history names, with the lengths of their texts."""
    body = StoredRecord.body if table is StoredRecord else StoredPrompt.request
    unnamed = select(table.hash, func.length(body)).where(table.hash.in_(_unnamed_hashes(table, after, until)))
    return {row[0]: row[1] for row in connection.execute(unnamed)}


def _unnamed_hashes(table: Any, after: str = "", until: str | None = None) -> Any:
    def within(column: Any) -> Any:
        return select(column).where(column > after, *([column <= until] if until else []))

    return within(table.hash).except_(*map(within, _NAMED_BY[table]))


def _prune_by_hash(engine: Engine, table: Any, told: Counting) -> Unused:
    removed = size = 0
    after = ""
    while True:
        with begin_alone(engine) as connection:
            end = select(table.hash).where(table.hash > after).order_by(table.hash).offset(HASHES_AT_ONCE).limit(1)
            until = connection.scalar(end)
            found = _unnamed(connection, table, after, until)
            _delete(connection, table, list(found))
        removed, size = removed + len(found), size + sum(found.values())
        told(table.__tablename__, removed)
        if until is None:
            return Unused(table.__tablename__, removed, size)
        after = until


def _prune_texts(engine: Engine, told: Counting) -> Unused:
    with begin_alone(engine) as connection:
        texts = _unnamed_texts(connection)
        _delete(connection, SharedText, list(texts))
    told(SharedText.__tablename__, len(texts))
    return Unused(SharedText.__tablename__, len(texts), sum(texts.values()))


def _unnamed_texts(connection: Connection) -> dict[str, int]:
    """Return the hashes of the texts that no prompt names, apart from prompts that go, with their lengths."""
    texts = {row[0]: row[1] for row in connection.execute(select(SharedText.hash, func.length(SharedText.body)))}
    for request in _requests(connection):
        for named in _NAMED.findall(request):
            texts.pop(named, None)
        if not texts:
            break
    return texts


def _requests(connection: Connection) -> Iterator[str]:
    stay = StoredPrompt.hash.not_in(_unnamed_hashes(StoredPrompt))
    with connection.execute(select(StoredPrompt.request).where(stay).execution_options(yield_per=1000)) as rows:
        yield from rows.scalars()


def _delete(connection: Connection, table: Any, hashes: Sequence[str]) -> None:
    for part in in_parts(hashes):
        connection.execute(delete(table).where(table.hash.in_(part)))
