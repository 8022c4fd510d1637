"""Estimate the real run from a rehearsal, and keep measured figures apart from guesses.

Time, requests and failures are measured. Input tokens are the sandbox's count of the real prompts. Only Claude knows
how long answers will be: their length comes from this installation's history, or else from the sandbox, which is
reported as a guess.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import DatabaseError
from db.readers.past_answers import PastAnswers, StepTokens, read_past
from db.sources.access import open_source
from db.words import SANDBOX
from presswork.prices import Usage, cost_of
from presswork.prompts.templates import Template
from presswork.terminal.ledgers import first_with


@dataclass(frozen=True)
class StepForecast:
    """One step of the real run; a cost is None if the price is unknown.

    `past_answers` counts the answers that `output_tokens` is estimated from; 0 means it is the sandbox's guess.
    `at_most_usd` is the cost if each answer fills its max_tokens.
    """

    step: str
    model: str
    answers: int
    input_tokens: int
    output_tokens: int
    past_answers: int
    cost_usd: Decimal | None
    at_most_usd: Decimal | None


def read_history(
    ledgers: Iterable[str], flow: str, templates: Sequence[Template], endpoint: str | None
) -> tuple[str, Mapping[str, PastAnswers]] | None:
    """Read the past answers of each template, by name, from the first ledger that has any of this endpoint.

    Ledgers are only read. If none can be read, there is no history.
    """
    own = endpoint if endpoint != SANDBOX else None

    def read(ledger: Engine) -> dict[str, PastAnswers]:
        known = {
            template.name: read_past(
                ledger, flow, template.name, template.front.model, endpoint=own, except_endpoint=SANDBOX
            )
            for template in templates
        }
        return {name: past for name, past in known.items() if past is not None}

    # A ledger may have no tables yet, or those of another version.
    return first_with(ledgers, read, open_source, passing=(DatabaseError, SQLAlchemyError))


def forecast(
    spent: Sequence[StepTokens], pasts: Mapping[str, PastAnswers], max_tokens: Callable[[str], int], day: date
) -> list[StepForecast]:
    """Estimate each step at the prices of the day."""
    steps: list[StepForecast] = []
    for each in spent:
        past = pasts.get(each.step)
        output = round(each.answers * past.mean_output_tokens) if past else each.output_tokens
        written = each.cache_creation_5m_tokens + each.cache_creation_1h_tokens
        steps.append(
            StepForecast(
                step=each.step,
                model=each.model,
                answers=each.answers,
                input_tokens=each.input_tokens + written + each.cache_read_tokens,
                output_tokens=output,
                past_answers=past.answers if past else 0,
                cost_usd=_cost(each, output, day),
                at_most_usd=_cost(each, each.answers * max_tokens(each.step), day),
            )
        )
    return steps


def added(costs: Iterable[Decimal | None]) -> Decimal | None:
    """Add costs up; one unknown cost makes the sum unknown."""
    found = list(costs)
    known = [cost for cost in found if cost is not None]
    return sum(known, Decimal(0)) if len(known) == len(found) else None


def _cost(spent: StepTokens, output_tokens: int, day: date) -> Decimal | None:
    # Prices are per token, so the price of a sum of tokens is the sum of their prices. The price can depend on the
    # prompt's length: the one for the mean prompt is used.
    used = Usage(
        spent.input_tokens,
        spent.cache_creation_5m_tokens,
        spent.cache_creation_1h_tokens,
        spent.cache_read_tokens,
        output_tokens,
    )
    return cost_of(spent.model, used, day, prompt_tokens=used.prompt_tokens // max(spent.answers, 1))
