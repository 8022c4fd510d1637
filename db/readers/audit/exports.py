"""Read all generations in chunks, the oldest first, each with its record, answer, usage and cost.

A chunk is a short transaction of its own, so that an export of hours stops no checkpoint of SQLite and keeps no dead
rows on PostgreSQL. What an export holds is decided once, by the newest id at its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, Select, Text, case, cast, func, select

from db.columns import aliased
from db.readers.audit.filters import Filter, conditions_of
from db.rollups.attempt_sums import COST, IS_UNPRICED, LIKELY_COST, MAY_BE_BILLED, WAS_SENT, WRITTEN, total
from db.session import in_parts, rows_of
from db.tables import Attempt, Generation, StoredRecord, StoredRun

ColumnKind = Literal["text", "json", "moment", "integer", "dollars"]
"""What a column holds. In a row, a moment is ISO 8601 text in UTC, and dollars are whole units of 1e-10 USD."""

EXPORT_COLUMNS: dict[str, ColumnKind] = {
    "generation_id": "text",
    "created_at": "moment",
    "run_id": "text",
    "trigger": "text",
    "flow": "text",
    "step": "text",
    "endpoint": "text",
    "record_key": "text",
    "status": "text",
    "origin": "text",
    "error_kind": "text",
    "error_message": "text",
    "template_hash": "text",
    "prompt_hash": "text",
    "record_hash": "text",
    "output_hash": "text",
    "source_generation_id": "text",
    "replaced_by": "text",
    "model": "text",
    "attempts": "integer",
    "requests": "integer",
    "input_tokens": "integer",
    "cache_creation_tokens": "integer",
    "cache_read_tokens": "integer",
    "output_tokens": "integer",
    "unpriced": "integer",
    "perhaps_billed": "integer",
    "latency_ms": "integer",
    "cost_usd": "dollars",
    "likely_usd": "dollars",
    "record": "json",
    "output": "json",
}
"""The columns of an exported row, in order, the long texts last. docs/ledger.md says what each holds."""

ExportedRow = tuple[Any, ...]
_NONE_MADE: ExportedRow = (None, 0, 0, 0, 0, 0, 0, 0, 0, None, 0, 0)
_USAGE = list(EXPORT_COLUMNS)[-len(_NONE_MADE) - 1 : -2]


@dataclass(frozen=True, slots=True)
class ExportChunk:
    """Rows in the order of EXPORT_COLUMNS. `last` is the last id that was looked at, None if there are no more."""

    rows: Sequence[ExportedRow]
    last: str | None


def newest_generation(engine: Engine) -> str:
    """Return the newest id of a generation; '' if there is none."""
    return str(rows_of(engine, select(func.coalesce(func.max(Generation.id), "")))[0][0])


def export_chunk(engine: Engine, wanted: Filter, after: str, newest: str, size: int) -> ExportChunk:
    """Return those that match among the next `size` generations after an id, up to and with the newest id.

    The filter must be `resolved`; rows that another one replaced are among them. Without `size` in between, a rare
    filter would make one statement read the ledger.
    """
    with engine.connect() as connection:
        last = connection.scalar(select(func.max(_window(after, newest, size, Generation.id).c.id)))
        if last is None:
            return ExportChunk([], None)
        found = connection.execute(_matching(connection, wanted, _window(after, last, size))).all()
        sums = _usage(connection, after, last) if found else {}
    rows = [(*row[:-2], *sums.get(row[0], _NONE_MADE), *row[-2:]) for row in found]
    return ExportChunk(sorted(rows, key=itemgetter(0)), last)


def count_usage(engine: Engine, generation_ids: Sequence[str]) -> dict[str, int | None]:
    """Add up the attempts of generations, by the names of EXPORT_COLUMNS; dollars are whole units of 1e-10 USD."""
    added: dict[str, int | None] = {}
    for part in in_parts(generation_ids):
        row = rows_of(engine, select(*_sums()).where(Attempt.generation_id.in_(part)))[0]
        for name, value in zip(_USAGE, row, strict=True):
            known = [each for each in (added.get(name), value) if each is not None]
            added[name] = sum(known) if known else None
    return added


def _window(after: str, until: str, size: int, *columns: Any) -> Any:
    # The limit keeps both databases on the primary key: with the filter's conditions in the same select, a planner may
    # read all rows of a flow for each chunk.
    within = select(*(columns or Generation.__table__.c)).where(Generation.id > after, Generation.id <= until)
    return within.order_by(Generation.id).limit(size).subquery("window")


def _matching(connection: Connection, wanted: Filter, window: Any) -> Select[Any]:
    g, source = window.c, aliased(Generation)
    # A cached row has no text; its source has it.
    output = case((g.source_generation_id.is_(None), g.output), else_=source.output)
    return (
        select(
            g.id,
            _moment(connection, g.created_at),
            g.run_id,
            StoredRun.trigger,
            g.flow,
            g.step,
            g.endpoint,
            g.record_key,
            g.status,
            g.origin,
            g.error_kind,
            g.error_message,
            g.template_hash,
            g.prompt_hash,
            g.record_hash,
            g.output_hash,
            g.source_generation_id,
            func.nullif(g.replaced_by, ""),
            StoredRecord.body,
            cast(output, Text),
        )
        .select_from(window)
        .join(StoredRun, StoredRun.id == g.run_id)
        .outerjoin(source, source.id == g.source_generation_id)
        .outerjoin(StoredRecord, StoredRecord.hash == g.record_hash)
        .where(*conditions_of(replace(wanted, replaced=True), g))
    )


def _sums() -> list[ColumnElement[int]]:
    """Return the sums over attempts, in the order of EXPORT_COLUMNS."""
    a, unpriced, perhaps = Attempt, total(IS_UNPRICED), total(case((MAY_BE_BILLED, 1), else_=0))
    cost, likely = func.sum(COST), func.sum(LIKELY_COST)
    sums = (
        func.count(a.id),
        total(WAS_SENT),
        total(a.input_tokens),
        total(WRITTEN),
        total(a.cache_read_tokens),
        total(a.output_tokens),
        unpriced,
        perhaps,
        func.sum(a.latency_ms),
        case((cost.is_(None) & (unpriced == 0), 0), else_=cost),
        case((likely.is_(None) & (perhaps == 0), 0), else_=likely),
    )
    return [cast(each, BigInteger) for each in sums]


def _usage(connection: Connection, after: str, last: str) -> dict[str, ExportedRow]:
    """Add up the attempts of each generation after `after`, up to and with `last`."""
    a = Attempt
    statement = (
        select(a.generation_id, func.max(a.model), *_sums())
        .where(a.generation_id > after, a.generation_id <= last)
        .group_by(a.generation_id)
    )
    return {row[0]: tuple(row[1:]) for row in connection.execute(statement).all()}


def _moment(connection: Connection, column: Any) -> Any:
    """Express a time as ISO 8601 text in UTC, to the microsecond."""
    if connection.dialect.name == "postgresql":
        return func.to_char(func.timezone("UTC", column), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    return func.replace(cast(column, Text), " ", "T") + "Z"
