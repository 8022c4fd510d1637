"""Look up prompts: which have an answer in the ledger, and which were paid for without a usable answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, Text, and_, bindparam, case, cast, or_, select

from db.session import rows_of
from db.tables import Attempt, Generation
from db.tables.prepared import among_those, one_value
from db.tables.tried_rows import is_of_trial
from db.words import BAD_OUTCOMES, FAILED, PERHAPS_BILLED, REQUESTED, SUCCEEDED, WRONG_MODEL


@dataclass(frozen=True, slots=True)
class PromptHistory:
    """The ledger's knowledge of one prompt: its newest succeeded answer, or the number of its bad outcomes.

    `output` is the answer's stored JSON. `wrong_model` is the model of the last answer if that was not the requested
    model.
    """

    generation_id: str | None = None
    output: str | None = None
    output_hash: str | None = None
    record_hash: str | None = None
    bad_outcomes: int = 0
    last_bad: str | None = None
    wrong_model: str | None = None


def look_up(engine: Engine, hashes: Sequence[str], *, since: datetime | None = None) -> dict[str, PromptHistory]:
    """Look up a page of prompts in one query; prompts without an outcome, or none `since` then, are not returned.

    An answer counts, even if a trial requested it. The bad outcomes of trials do not count: people try prompts to find
    their faults, and a run must not skip the record because of that.
    """
    dialect = engine.dialect.name
    wanted = {"hashes": one_value(hashes, dialect), **({} if since is None else {"since": since})}
    found: dict[str, PromptHistory] = {}
    for prompt_hash, status, kind, model, generation_id, output, output_hash, record_hash in rows_of(
        engine, _outcomes(dialect, has_since=since is not None), wanted
    ):
        before = found.get(prompt_hash, PromptHistory())
        if status == SUCCEEDED:
            found[prompt_hash] = PromptHistory(generation_id, output, output_hash, record_hash)
        elif before.generation_id is None:
            last = f"failed ({kind})" if status == FAILED else status
            count = before.bad_outcomes + 1
            found[prompt_hash] = PromptHistory(bad_outcomes=count, last_bad=last, wrong_model=model)
    return found


@cache
def _outcomes(dialect: str, *, has_since: bool) -> Select[Any]:
    by_ordinal = select(Attempt.model).where(Attempt.generation_id == Generation.id).order_by(Attempt.ordinal.desc())
    answered_by = by_ordinal.limit(1).scalar_subquery()
    ending = (Generation.status, Generation.error_kind, case((Generation.error_kind == WRONG_MODEL, answered_by)))
    content = (Generation.id, cast(Generation.output, Text), Generation.output_hash, Generation.record_hash)
    which = [
        among_those(Generation.prompt_hash, "hashes", dialect),
        Generation.origin.in_(REQUESTED),
        or_(Generation.status == SUCCEEDED, and_(_is_bad_outcome(), ~is_of_trial(Generation.run_id))),
    ]
    if has_since:
        which.append(Generation.created_at >= bindparam("since"))
    return select(Generation.prompt_hash, *ending, *content).where(*which).order_by(Generation.id)


def _is_bad_outcome() -> ColumnElement[bool]:
    # Look at all attempts: a failure's own error does not show whether a request before the last one was billed.
    # Attempts that a crash left open have no generation and do not count: they were not this prompt's fault.
    billed = or_(Attempt.error_type.is_(None), Attempt.error_type.in_(PERHAPS_BILLED))
    paid = select(Attempt.id).where(Attempt.generation_id == Generation.id, billed).exists()
    return or_(Generation.status.in_(BAD_OUTCOMES), and_(Generation.status == FAILED, paid))
