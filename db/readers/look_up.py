"""Look prompts up: which of them have an answer, and which brought none although they were paid for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Text, and_, case, cast, or_, select

from db.ledger.tables import Attempt, Generation
from db.session import among, rows_of
from db.words import ASKED, BAD_OUTCOMES, FAILED, PERHAPS_BILLED, SUCCEEDED, WRONG_MODEL, Status


@dataclass(frozen=True, slots=True)
class PromptHistory:
    """What is known of one prompt: its newest succeeded answer, or how often it went badly.

    `output` is the answer's JSON as it is kept. `wrong_model` is the model that answered last, where it was
    another than was asked.
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
    """How a prompt ended that brought no content: the generation that says so."""

    generation_id: str
    status: Status
    kind: str | None
    message: str | None


def look_up(engine: Engine, hashes: Sequence[str], *, since: datetime | None = None) -> dict[str, PromptHistory]:
    """Look a page of prompts up in one query; prompts never answered, or not `since` then, are not in the result."""
    by_ordinal = select(Attempt.model).where(Attempt.generation_id == Generation.id).order_by(Attempt.ordinal.desc())
    answered_by = by_ordinal.limit(1).scalar_subquery()
    ending = (Generation.status, Generation.error_kind, case((Generation.error_kind == WRONG_MODEL, answered_by)))
    content = (Generation.id, cast(Generation.output, Text), Generation.output_hash, Generation.record_hash)
    which = [or_(Generation.status == SUCCEEDED, _went_badly())]
    if since is not None:
        which.append(Generation.created_at >= since)
    found: dict[str, PromptHistory] = {}
    for prompt_hash, status, kind, model, generation_id, output, output_hash, record_hash in _asked(
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
    """Return the prompts that these runs asked, perhaps paid for and got no content for; the newest of each."""
    columns = (Generation.id, Generation.status, Generation.error_kind, Generation.error_message)
    rows = _asked(engine, hashes, columns, Generation.run_id.in_(run_ids), _went_badly())
    return {
        prompt_hash: BadOutcome(generation_id, status, kind, message)
        for prompt_hash, generation_id, status, kind, message in rows
    }


def _asked(
    engine: Engine, hashes: Sequence[str], columns: Sequence[Any], *which: ColumnElement[bool]
) -> list[Row[Any]]:
    """Read generations that were asked for, of these prompts, the oldest first."""
    of_prompts = (among(Generation.prompt_hash, hashes, engine.dialect.name), Generation.origin.in_(ASKED))
    statement = select(Generation.prompt_hash, *columns).where(*of_prompts, *which).order_by(Generation.id)
    return rows_of(engine, statement)


def _went_badly() -> ColumnElement[bool]:
    # By the attempts: how a failure ended says nothing of what was paid for before its last request.
    # What a crash left open has no generation, and does not count: it says nothing of the one prompt among hundreds.
    billed = or_(Attempt.error_type.is_(None), Attempt.error_type.in_(PERHAPS_BILLED))
    paid = select(Attempt.id).where(Attempt.generation_id == Generation.id, billed).exists()
    return or_(Generation.status.in_(BAD_OUTCOMES), and_(Generation.status == FAILED, paid))
