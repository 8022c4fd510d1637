"""Look prompts up: which of them have an answer, and which brought none although they were paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, case, or_, select

from db.ledger.tables import Attempt, Generation
from db.session import in_parts
from db.words import ASKED, BAD_OUTCOMES, FAILED, PERHAPS_BILLED, SUCCEEDED, WRONG_MODEL, Status


@dataclass(frozen=True, slots=True)
class PromptHistory:
    """What is known of one prompt: its newest succeeded answer, or how often it went badly.

    `wrong_model` is the model that answered last, where it was another than was asked.
    """

    generation_id: str | None = None
    output: Any = None
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
    found: dict[str, PromptHistory] = {}
    generation = Generation
    by_ordinal = select(Attempt.model).where(Attempt.generation_id == generation.id).order_by(Attempt.ordinal.desc())
    answered_by = by_ordinal.limit(1).scalar_subquery()
    for part in in_parts(hashes):
        statement = (
            select(
                generation.prompt_hash,
                generation.id,
                generation.status,
                generation.output,
                generation.output_hash,
                generation.record_hash,
                generation.error_kind,
                case((generation.error_kind == WRONG_MODEL, answered_by)),
            )
            .where(
                generation.prompt_hash.in_(part),
                generation.origin.in_(ASKED),
                or_(generation.status == SUCCEEDED, _went_badly()),
            )
            .order_by(generation.id)
        )
        if since is not None:
            statement = statement.where(generation.created_at >= since)
        with engine.connect() as connection:
            for prompt_hash, generation_id, status, output, *hashes_of, kind, model in connection.execute(statement):
                before = found.get(prompt_hash, PromptHistory())
                if status == SUCCEEDED:
                    found[prompt_hash] = PromptHistory(generation_id, output, *hashes_of)
                elif before.generation_id is None:
                    last = f"failed ({kind})" if status == FAILED else status
                    count = before.bad_outcomes + 1
                    found[prompt_hash] = PromptHistory(bad_outcomes=count, last_bad=last, wrong_model=model)
    return found


def bad_outcomes_of(engine: Engine, run_ids: Sequence[str], hashes: Sequence[str]) -> dict[str, BadOutcome]:
    """Return the prompts that these runs asked, perhaps paid for and got no content for; the newest of each."""
    found: dict[str, BadOutcome] = {}
    for part in in_parts(hashes):
        statement = (
            select(
                Generation.prompt_hash,
                Generation.id,
                Generation.status,
                Generation.error_kind,
                Generation.error_message,
            )
            .where(
                Generation.prompt_hash.in_(part),
                Generation.run_id.in_(run_ids),
                Generation.origin.in_(ASKED),
                _went_badly(),
            )
            .order_by(Generation.id)
        )
        with engine.connect() as connection:
            found |= {str(row[0]): BadOutcome(row[1], row[2], row[3], row[4]) for row in connection.execute(statement)}
    return found


def _went_badly() -> ColumnElement[bool]:
    # By the attempts: how a failure ended says nothing of what was paid for before its last request.
    # What a crash left open has no generation, and does not count: it says nothing of the one prompt among hundreds.
    billed = or_(Attempt.error_type.is_(None), Attempt.error_type.in_(PERHAPS_BILLED))
    paid = select(Attempt.id).where(Attempt.generation_id == Generation.id, billed).exists()
    return or_(Generation.status.in_(BAD_OUTCOMES), and_(Generation.status == FAILED, paid))
