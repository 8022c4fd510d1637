"""Read what went wrong in a run: its generations without content, and its requests without a usable answer.

The former include failures of earlier runs that this run repeated unchanged, see confirmations.py.
"""

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from sqlalchemy import Engine, Integer, Row, Select, Subquery, bindparam, case, func, select, union_all

from db.readers.confirmations import Confirmed, confirmed_failures
from db.readers.runs import counts_in
from db.session import rows_of
from db.tables import Attempt, Generation, StoredStep
from db.words import INVALID, NOT_SENT, SUCCEEDED

UNUSABLE = ("max_tokens", "model_context_window_exceeded", "refusal", "tool_use", "pause_turn")
NAMED_KEYS = 5


@dataclass(frozen=True, slots=True)
class Trouble:
    """Requests of a run without a usable answer, also if a retry succeeded; `kind` says why."""

    kind: str
    requests: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Generations without content that ended in the same way; `record_keys` names the first few.

    `repeated` of the `count` are of earlier runs: this run repeated their failures unchanged.
    """

    step: str
    status: str
    kind: str | None
    message: str | None
    count: int
    record_keys: tuple[str, ...]
    repeated: int = 0


def without_content(engine: Engine, run_id: str, limit: int = 10) -> list[Row[Any]]:
    """List a run's first generations without content: generation_id, step, record_key, status, kind, message."""
    return rows_of(engine, _first(confirmed_failures(engine, run_id)), {"of_run": run_id, "most": limit})


@cache
def _first(repeated: Confirmed) -> Select[Any]:
    lost = _without_content(repeated)
    ending = (Generation.status, Generation.error_kind.label("kind"), Generation.error_message.label("message"))
    return (
        select(Generation.id.label("generation_id"), Generation.step, Generation.record_key, *ending)
        .join(lost, lost.c.id == Generation.id)
        .order_by(Generation.id)
        .limit(bindparam("most", type_=Integer))
    )


def count_unlisted(engine: Engine, run_id: str) -> int:
    """Count the failures that a run repeated but that are no longer listed, because later runs did these records.

    A trial that has ended lists none of them, because it changes nothing in `content`.
    """
    repeated = confirmed_failures(engine, run_id).subquery()
    counted = select(func.coalesce(func.sum(StoredStep.failed_again + StoredStep.skipped_again), 0))
    listed = select(func.count()).select_from(repeated)
    with engine.connect() as connection:
        of_run = (counted.where(StoredStep.run_id == bindparam("of_run")), listed)
        counts = (connection.scalar(each, {"of_run": run_id}) or 0 for each in of_run)
        return int(next(counts) - next(counts))


def troubles(engine: Engine, run_id: str) -> list[Trouble]:
    """Count a run's requests without a usable answer, by kind; the most frequent first."""
    kind = case(
        (Attempt.error_type.is_not(None), Attempt.error_type),
        (Attempt.stop_reason.in_(UNUSABLE), Attempt.stop_reason),
        (Attempt.validation_errors.is_not(None), INVALID),
    )
    # A subquery names it: PostgreSQL does not recognize that two expressions with bound values are equal.
    kinds = select(kind.label("kind")).where(Attempt.run_id == run_id).subquery()
    statement = (
        select(kinds.c.kind, func.count())
        .where(kinds.c.kind.is_not(None), kinds.c.kind != NOT_SENT)
        .group_by(kinds.c.kind)
        .order_by(func.count().desc(), kinds.c.kind)
    )
    return [Trouble(*row) for row in rows_of(engine, statement)]


def losses(engine: Engine, run_id: str) -> list[Loss]:
    """Group a run's generations without content by how they ended, the most frequent first."""
    lost = _without_content(confirmed_failures(engine, run_id))
    alike = (Generation.step, Generation.status, Generation.error_kind)
    ranked = (
        select(
            *alike,
            Generation.error_message,
            Generation.record_key,
            func.count().over(partition_by=alike).label("alike"),
            func.sum(case((Generation.run_id == run_id, 0), else_=1)).over(partition_by=alike).label("repeated"),
            func.min(Generation.id).over(partition_by=alike).label("first"),
            func.row_number().over(partition_by=alike, order_by=Generation.id).label("nth"),
        )
        .join(lost, lost.c.id == Generation.id)
        .subquery()
    )
    named = select(ranked).where(ranked.c.nth <= NAMED_KEYS)
    ordered = named.order_by(ranked.c.alike.desc(), ranked.c.first, ranked.c.nth)
    rows = rows_of(engine, ordered, {"of_run": run_id})
    found = []
    for _first, group in groupby(rows, key=lambda row: row.first):
        head, *others = group
        keys = tuple(row.record_key for row in (head, *others))
        ending = (head.step, head.status, head.error_kind, head.error_message)
        found.append(Loss(*ending, head.alike, keys, int(head.repeated)))
    return found


@cache
def _without_content(repeated: Confirmed) -> Subquery:
    """Select the `id` of each generation without content: the run's own, and the earlier ones that it repeated."""
    own = select(Generation.id).where(counts_in(bindparam("of_run")), Generation.status != SUCCEEDED)
    return union_all(own, select(repeated.subquery().c.generation_id)).subquery()
