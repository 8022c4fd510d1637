"""Look up prompts: which have an answer in the ledger, and which were paid for without a usable answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Text, and_, case, cast, or_, select

from db.session import among, rows_of
from db.tables import Attempt, Generation
from db.trials import is_of_trial
from db.words import BAD_OUTCOMES, FAILED, PERHAPS_BILLED, REQUESTED, SUCCEEDED, WRONG_MODEL, Status


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


@dataclass(frozen=True, slots=True)
class BadOutcome:
    """A generation without content, as the outcome of a prompt."""

    generation_id: str
    status: Status
    kind: str | None
    message: str | None


def look_up(engine: Engine, hashes: Sequence[str], *, since: datetime | None = None) -> dict[str, PromptHistory]:
    """Look up a page of prompts in one query; prompts without an outcome, or none `since` then, are not returned.

    An answer counts, even if a trial requested it. The bad outcomes of trials do not count: people try prompts to find
    their faults, and a run must not skip the record because of that.
    """
    by_ordinal = select(Attempt.model).where(Attempt.generation_id == Generation.id).order_by(Attempt.ordinal.desc())
    answered_by = by_ordinal.limit(1).scalar_subquery()
    ending = (Generation.status, Generation.error_kind, case((Generation.error_kind == WRONG_MODEL, answered_by)))
    content = (Generation.id, cast(Generation.output, Text), Generation.output_hash, Generation.record_hash)
    which = [or_(Generation.status == SUCCEEDED, and_(_is_bad_outcome(), ~is_of_trial(Generation.run_id)))]
    if since is not None:
        which.append(Generation.created_at >= since)
    found: dict[str, PromptHistory] = {}
    for prompt_hash, status, kind, model, generation_id, output, output_hash, record_hash in _requested(
        engine, hashes, (*ending, *content), *which
    ):
        before = found.get(prompt_hash, PromptHistory())
        if status == SUCCEEDED:
            found[prompt_hash] = PromptHistory(generation_id, output, output_hash, record_hash)
        elif before.generation_id is None:
            last = f"failed ({kind})" if status == FAILED else status
            count = before.bad_outcomes + 1
            found[prompt_hash] = PromptHistory(bad_outcomes=count, last_bad=last, wrong_model=model)
    return found


def bad_outcomes_of(engine: Engine, run_ids: Sequence[str], hashes: Sequence[str]) -> dict[str, BadOutcome]:
    """Return each prompt's newest bad outcome in these runs, if they requested it and may have paid for it."""
    columns = (Generation.id, Generation.status, Generation.error_kind, Generation.error_message)
    rows = _requested(engine, hashes, columns, Generation.run_id.in_(run_ids), _is_bad_outcome())
    return {
        prompt_hash: BadOutcome(generation_id, status, kind, message)
        for prompt_hash, generation_id, status, kind, message in rows
    }


def _requested(
    engine: Engine, hashes: Sequence[str], columns: Sequence[Any], *which: ColumnElement[bool]
) -> list[Row[Any]]:
    """Read the generations of these prompts whose answer was requested, not reused; the oldest first."""
    of_prompts = (among(Generation.prompt_hash, hashes, engine.dialect.name), Generation.origin.in_(REQUESTED))
    statement = select(Generation.prompt_hash, *columns).where(*of_prompts, *which).order_by(Generation.id)
    return rows_of(engine, statement)


def _is_bad_outcome() -> ColumnElement[bool]:
    # Look at all attempts: a failure's own error does not show whether a request before the last one was billed.
    # Attempts that a crash left open have no generation and do not count: they were not this prompt's fault.
    billed = or_(Attempt.error_type.is_(None), Attempt.error_type.in_(PERHAPS_BILLED))
    paid = select(Attempt.id).where(Attempt.generation_id == Generation.id, billed).exists()
    return or_(Generation.status.in_(BAD_OUTCOMES), and_(Generation.status == FAILED, paid))
