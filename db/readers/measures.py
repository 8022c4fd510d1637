"""Measures: what requests took, in tokens and in time, and how those went that went badly. For rehearsals.

Apart from history.py, which tells of what is there: a rehearsal tells of a run that is still to be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, case, func, select

from db.ledger.tables import Attempt, Generation, StoredPrompt
from db.words import NOT_SENT

NEWEST = 1000
"""Answers that are looked at: those of long ago tell of other records and another prompt."""
UNUSABLE = ("max_tokens", "model_context_window_exceeded", "refusal", "tool_use", "pause_turn")
NAMED_KEYS = 5


@dataclass(frozen=True, slots=True)
class Past:
    """What a step's newest answers took: tokens out on average, and milliseconds each."""

    mean_output_tokens: float
    latencies_ms: tuple[int, ...]

    @property
    def answers(self) -> int:
        """How many they are."""
        return len(self.latencies_ms)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the answers of one step of a run used, in tokens; `model` is the one that was asked."""

    step: str
    model: str
    answers: int
    input_tokens: int
    cache_creation_5m_tokens: int
    cache_creation_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Requests of a run that brought nothing usable, whether or not asking again helped; `kind` says why."""

    kind: str
    requests: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Generations of a run without content that ended alike; `record_keys` names the first few."""

    step: str
    status: str
    kind: str | None
    message: str | None
    count: int
    record_keys: tuple[str, ...]


def read_past(
    engine: Engine, flow: str, step: str, model: str, *, endpoint: str | None, made_up_by: str
) -> Past | None:
    """Return what the newest answers of a step took; None where there is none.

    Those of one endpoint, or of all but the one whose answers are made up.
    """
    of_endpoint: ColumnElement[bool] = (
        Generation.endpoint == endpoint if endpoint else Generation.endpoint != made_up_by
    )
    newest = (
        select(Generation.id)
        .where(Generation.flow == flow, Generation.step == step, of_endpoint, Generation.origin == "live")
        .order_by(Generation.id.desc())
        .limit(NEWEST)
        .subquery()
    )
    statement = (
        select(Attempt.output_tokens, Attempt.latency_ms)
        .join(newest, newest.c.id == Attempt.generation_id)
        .join(StoredPrompt, StoredPrompt.hash == Attempt.prompt_hash)
        .where(Attempt.output_tokens.is_not(None), Attempt.latency_ms.is_not(None), StoredPrompt.model == model)
    )
    with engine.connect() as connection:
        rows = [(int(tokens or 0), int(latency or 0)) for tokens, latency in connection.execute(statement)]
    if not rows:
        return None
    return Past(sum(tokens for tokens, _ in rows) / len(rows), tuple(latency for _, latency in rows))


def spent_by_step(engine: Engine, run_id: str) -> list[Spent]:
    """Add up what a run's answers used, by step and model, in the order in which the steps began."""
    attempt = Attempt
    columns: tuple[Any, ...] = (
        attempt.input_tokens,
        attempt.cache_creation_5m_tokens,
        attempt.cache_creation_1h_tokens,
        attempt.cache_read_tokens,
        attempt.output_tokens,
    )
    statement = (
        select(
            Generation.step,
            StoredPrompt.model,
            func.count(),
            *(func.coalesce(func.sum(column), 0) for column in columns),
        )
        .select_from(attempt)
        .join(Generation, Generation.id == attempt.generation_id)
        .join(StoredPrompt, StoredPrompt.hash == attempt.prompt_hash)
        .where(attempt.run_id == run_id, attempt.output_tokens.is_not(None))
        .group_by(Generation.step, StoredPrompt.model)
        .order_by(func.min(attempt.id))
    )
    with engine.connect() as connection:
        return [Spent(row[0], row[1], *(int(number) for number in row[2:])) for row in connection.execute(statement)]


def troubles(engine: Engine, run_id: str) -> list[Trouble]:
    """Count a run's requests that brought nothing usable, the most frequent first."""
    kind = case(
        (Attempt.error_type.is_not(None), Attempt.error_type),
        (Attempt.stop_reason.in_(UNUSABLE), Attempt.stop_reason),
        (Attempt.validation_errors.is_not(None), "invalid"),
    )
    # Named in a query of its own: PostgreSQL does not see that two expressions with bound values are the same.
    kinds = select(kind.label("kind")).where(Attempt.run_id == run_id).subquery()
    statement = (
        select(kinds.c.kind, func.count())
        .where(kinds.c.kind.is_not(None), kinds.c.kind != NOT_SENT)
        .group_by(kinds.c.kind)
        .order_by(func.count().desc(), kinds.c.kind)
    )
    with engine.connect() as connection:
        return [Trouble(found, count) for found, count in connection.execute(statement)]


def losses(engine: Engine, run_id: str) -> list[Loss]:
    """Put together a run's generations without content that ended alike, the most frequent first."""
    statement = (
        select(
            Generation.step,
            Generation.status,
            Generation.error_kind,
            Generation.error_message,
            Generation.record_key,
        )
        .where(Generation.run_id == run_id, Generation.status != "succeeded")
        .order_by(Generation.id)
    )
    found: dict[tuple[str, str, str | None], _Alike] = {}
    with engine.connect() as connection:
        for step, status, kind, message, key in connection.execute(statement):
            found.setdefault((step, status, kind), _Alike(message)).add(key)
    alike = [Loss(*which, each.message, each.count, tuple(each.keys)) for which, each in found.items()]
    return sorted(alike, key=lambda loss: -loss.count)


class _Alike:
    def __init__(self, message: str | None) -> None:
        self.message, self.count = message, 0
        self.keys: list[str] = []

    def add(self, key: str) -> None:
        self.count += 1
        if len(self.keys) < NAMED_KEYS:
            self.keys.append(key)
