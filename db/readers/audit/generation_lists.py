"""List generations that match a filter, the newest first, in pages.

A page first finds its ids and then reads the texts of these alone: sorting wide rows would read all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Engine, Row, Text, cast, func, select

from db.columns import aliased
from db.readers.audit.filters import Filter, check_text, resolved
from db.readers.audit.ways.matching_ids import newest_ids
from db.rollups.attempt_sums import COST, IS_UNPRICED, dollars_of, total
from db.session import in_parts, rows_of
from db.tables import Attempt, Generation, StoredPrompt, StoredRun

GENERATIONS_A_PAGE = 50
BEGINNING = 200
"""The number of characters of an answer that a list shows."""
_READ_OF_ANSWER = 1_000
_TEXT_IN_JSON = re.compile(r'"((?:[^"\\]|\\.)*)(?:"\s*(:)?|\\?$)|(-?\d[\d.eE+-]*|true|false)(?=[,\s\]}])')


@dataclass(frozen=True, slots=True)
class GenerationLine:
    """A generation as a list shows it; `beginning` is the beginning of its answer's texts, without keys.

    `model` is the requested one, None if nothing was rendered. `counts_in_run` is false if another of the run replaced
    it. `trigger` is what started the run. `cost_usd` is the sum of its own requests without the `unpriced` ones; 0 for
    an answer from the ledger.
    """

    id: str
    created_at: datetime
    flow: str
    step: str
    endpoint: str
    record_key: str
    status: str
    origin: str
    template_hash: str
    model: str | None
    run_id: str
    trigger: str
    error_kind: str | None
    error_message: str | None
    beginning: str
    counts_in_run: bool
    attempts: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class GenerationPage:
    """A page of a list; `before` is where the next page begins, None if there is none."""

    lines: list[GenerationLine]
    before: str | None


def list_generations(
    engine: Engine, wanted: Filter, before: str | None = None, limit: int = GENERATIONS_A_PAGE
) -> GenerationPage:
    """List the generations of a filter, the newest first, without its `words`; `before` is the end of the last page.

    Raises FilterError for a template or a run that does not exist.
    """
    check_text("before", before)
    found = newest_ids(engine, resolved(engine, wanted), before, limit + 1)
    lines = lines_of(engine, found[:limit])
    return GenerationPage(lines, found[limit - 1] if len(found) > limit else None)


def lines_of(engine: Engine, ids: Sequence[str]) -> list[GenerationLine]:
    """Read the lines of generations, in the order of these ids; unknown ids are left out."""
    found: dict[str, GenerationLine] = {}
    for part in in_parts(ids):
        costs = {row.generation_id: row for row in rows_of(engine, _COSTS.where(Attempt.generation_id.in_(part)))}
        for row in rows_of(engine, _LINES.where(Generation.id.in_(part))):
            found[row.id] = _line(row, costs.get(row.id))
    return [found[each] for each in ids if each in found]


_source = aliased(Generation)
_LINES = (
    select(
        Generation.id,
        Generation.created_at,
        Generation.flow,
        Generation.step,
        Generation.endpoint,
        Generation.record_key,
        Generation.status,
        Generation.origin,
        Generation.template_hash,
        StoredPrompt.model,
        Generation.run_id,
        StoredRun.trigger,
        Generation.error_kind,
        func.substr(Generation.error_message, 1, BEGINNING).label("error_message"),
        func.substr(cast(func.coalesce(Generation.output, _source.output), Text), 1, _READ_OF_ANSWER).label(
            "beginning"
        ),
        (Generation.replaced_by == "").label("counts_in_run"),
    )
    .join(StoredRun, StoredRun.id == Generation.run_id)
    .outerjoin(StoredPrompt, StoredPrompt.hash == Generation.prompt_hash)
    .outerjoin(_source, _source.id == Generation.source_generation_id)
)
_COSTS = select(
    Attempt.generation_id,
    func.count().label("attempts"),
    total(COST).label("cost_e10"),
    total(IS_UNPRICED).label("unpriced"),
).group_by(Attempt.generation_id)


def _line(row: Row[Any], cost: Row[Any] | None) -> GenerationLine:
    line = GenerationLine(**row._asdict() | {"beginning": beginning_of(row.beginning or "")})
    if cost is None:
        return line
    spent = dollars_of(cost.cost_e10)
    return replace(line, attempts=cost.attempts, cost_usd=spent, unpriced=int(cost.unpriced))


def beginning_of(answer: str) -> str:
    """Return the beginning of the values in a JSON answer, which may be cut off anywhere."""
    values = []
    for text, is_key, other in _TEXT_IN_JSON.findall(answer):
        if not is_key and (text or other):
            values.append(_unescaped(text) if text else other)
    return " · ".join(values)[:BEGINNING]


def _unescaped(text: str) -> str:
    try:
        return str(orjson.loads(f'"{text}"'))
    except orjson.JSONDecodeError:
        # Cut off within an escape.
        return text
