"""Measure past answers, in tokens and in time: for the pacing of runs and the forecasts of rehearsals."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Engine, Select, Subquery, bindparam, case, func, select, union_all

from db.rollups.attempt_sums import COST, dollars_of, total
from db.session import rows_of
from db.tables import Attempt, Generation, StoredPrompt, StoredRun
from db.words import TRY

NEWEST_RUNS, NEWEST_ATTEMPTS = 5, 1000
"""How many runs are read, and how many attempts of each: older ones had other records and another prompt."""
_TOKENS = tuple(
    total(column)
    for column in (
        Attempt.input_tokens,
        Attempt.cache_creation_5m_tokens,
        Attempt.cache_creation_1h_tokens,
        Attempt.cache_read_tokens,
        Attempt.output_tokens,
    )
)
"""The sums of an answer's tokens, in the order of their fields below."""
_Values = dict[str, str]
"""The values of a statement's parameters."""


@dataclass(frozen=True, slots=True)
class PastAnswers:
    """Measures of a step's newest answers: the average of output tokens, and each answer's milliseconds."""

    mean_output_tokens: float
    latencies_ms: tuple[int, ...]

    @property
    def answers(self) -> int:
        """The number of answers."""
        return len(self.latencies_ms)


@dataclass(frozen=True, slots=True)
class StepTokens:
    """The tokens of all answers of one step of a run; `model` is the requested model."""

    step: str
    model: str
    answers: int
    input_tokens: int
    cache_creation_5m_tokens: int
    cache_creation_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """The tokens and the cost of all answers that one model gave; cost_usd is None if one has no price."""

    model: str | None
    answers: int
    input_tokens: int
    cache_creation_5m_tokens: int
    cache_creation_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost_usd: Decimal | None


def mean_tokens(engine: Engine, flow: str, step: str, endpoint: str, model: str) -> tuple[float, float] | None:
    """Return the average input and output tokens of a step's newest answers; None if there are no answers."""
    values = {"of_flow": flow, "of_step": step, "of_model": model, "of_endpoint": endpoint}
    runs = _newest_runs(engine, values, of_others=False)
    ((mean_in, mean_out),) = rows_of(engine, _means(len(runs)), {**values, **runs})
    return None if mean_out is None else (float(mean_in or 0), float(mean_out))


def read_past(
    engine: Engine, flow: str, step: str, model: str, *, endpoint: str | None, except_endpoint: str
) -> PastAnswers | None:
    """Return the measures of a step's newest answers; None if there are no answers.

    Reads the answers of `endpoint`, or without it those of all endpoints but `except_endpoint` (the sandbox).
    """
    values = {"of_flow": flow, "of_step": step, "of_model": model, "of_endpoint": endpoint or except_endpoint}
    runs = _newest_runs(engine, values, of_others=not endpoint)
    answers = _newest_answers(len(runs))
    timed = select(answers.c.tokens_out, answers.c.latency_ms).where(answers.c.latency_ms.is_not(None))
    rows = [(int(tokens), int(latency)) for tokens, latency in rows_of(engine, timed, {**values, **runs})]
    if not rows:
        return None
    return PastAnswers(sum(tokens for tokens, _ in rows) / len(rows), tuple(latency for _, latency in rows))


def _newest_runs(engine: Engine, values: _Values, *, of_others: bool) -> _Values:
    """Return the newest runs that have answers of a step, as the parameters of `_newest_answers`.

    These are runs of the endpoint, or those `of_others`. Trials have few records, so their answers count only if no run
    has any. Runs without an answer for this step, such as runs of other steps only, do not count among the newest.
    """
    for trials in (False, True):
        if found := rows_of(engine, _having_answers(of_others=of_others, trials=trials), values):
            return {f"run_{number}": run.id for number, run in enumerate(found)}
    return {"run_0": ""}


@cache
def _having_answers(*, of_others: bool, trials: bool) -> Select[tuple[str]]:
    endpoint: Any = bindparam("of_endpoint")
    flow = StoredRun.flow == bindparam("of_flow")
    of_endpoint = StoredRun.endpoint != endpoint if of_others else StoredRun.endpoint == endpoint
    having_some = _answers().where(Attempt.run_id == StoredRun.id).exists()
    is_trial = StoredRun.trigger == TRY
    runs = select(StoredRun.id).where(flow, of_endpoint, having_some, is_trial if trials else ~is_trial)
    return runs.order_by(StoredRun.started_at.desc()).limit(NEWEST_RUNS)


@cache
def _means(runs: int) -> Select[Any]:
    answers = _newest_answers(runs)
    return select(func.avg(answers.c.tokens_in), func.avg(answers.c.tokens_out))


@cache
def _newest_answers(runs: int) -> Subquery:
    """Select `tokens_in`, `tokens_out` and `latency_ms` of the newest answers of a step in this number of runs.

    Uses the index on the attempts' run and end, because a ledger may hold millions of answers.
    """
    of_runs = (_answers().where(Attempt.run_id == bindparam(f"run_{number}")) for number in range(runs))
    newest_of_each = (each.order_by(Attempt.ended_at.desc()).limit(NEWEST_ATTEMPTS).subquery() for each in of_runs)
    return union_all(*(select(each) for each in newest_of_each)).subquery()


def _answers() -> Select[Any]:
    cached = (Attempt.cache_creation_5m_tokens, Attempt.cache_creation_1h_tokens, Attempt.cache_read_tokens)
    tokens_in = Attempt.input_tokens + sum(func.coalesce(column, 0) for column in cached)
    took = (tokens_in.label("tokens_in"), Attempt.output_tokens.label("tokens_out"), Attempt.latency_ms)
    return (
        select(*took)
        .join(Generation, Generation.id == Attempt.generation_id)
        .join(StoredPrompt, StoredPrompt.hash == Attempt.prompt_hash)
        .where(Attempt.ended_at.is_not(None), Attempt.output_tokens.is_not(None))
        .where(Generation.step == bindparam("of_step"), StoredPrompt.model == bindparam("of_model"))
    )


def spent_by_step(engine: Engine, run_id: str) -> list[StepTokens]:
    """Add up the tokens of a run's answers by step and model, in the order in which the steps began."""
    statement = (
        select(Generation.step, StoredPrompt.model, func.count(), *_TOKENS)
        .select_from(Attempt)
        .join(Generation, Generation.id == Attempt.generation_id)
        .join(StoredPrompt, StoredPrompt.hash == Attempt.prompt_hash)
        .where(Attempt.run_id == run_id, Attempt.output_tokens.is_not(None))
        .group_by(Generation.step, StoredPrompt.model)
        .order_by(func.min(Attempt.id))
    )
    return [StepTokens(step, model, *map(int, counts)) for step, model, *counts in rows_of(engine, statement)]


def answers_by_model(engine: Engine, run_id: str, step: str) -> list[ModelAnswers]:
    """Add up the answers that a run has for a step, by the model that gave them."""
    statement = (
        select(
            Attempt.model, func.count(), *_TOKENS, case((func.count(Attempt.cost_usd) == func.count(), func.sum(COST)))
        )
        .join(Generation, Generation.id == Attempt.generation_id)
        .where(Attempt.run_id == run_id, Attempt.output_tokens.is_not(None), Generation.step == step)
        .group_by(Attempt.model)
        .order_by(Attempt.model)
    )
    found = []
    for model, *counts, cost in rows_of(engine, statement):
        answers, plain, written_5m, written_1h, read, output = map(int, counts)
        dollars = None if cost is None else dollars_of(cost)
        found.append(ModelAnswers(model, answers, plain, written_5m, written_1h, read, output, dollars))
    return found
