"""Show one generation whole: record, prompt, answer, attempts, and what it was made from and used for."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Engine

from db.readers.stored_generations import Audit, read_generation
from db.words import PERHAPS_BILLED, SUCCEEDED
from presswork.audit.page import NotFoundError, Page, PageQuery, ShortText
from presswork.report.sent_prompts import SentPrompt, as_text, sent_prompt

LINEAGE = 200
"""How many parents and children a page lists."""


class GenerationQuery(PageQuery):
    """The generation's id, or the beginning or end of it."""

    id: ShortText


@dataclass(frozen=True)
class GivenAnswer:
    """An answer: its fields as texts by name, if it is an object, and as it came from the model.

    `raw` is the text of the last answered attempt; None if no attempt was answered.
    """

    fields: Mapping[str, str]
    value: Any
    raw: str | None

    @property
    def text(self) -> str:
        """The answer as one text, if it is no object."""
        return as_text(self.value)


@dataclass(frozen=True)
class GenerationView:
    """A generation with its prompt laid out. `cost_usd` is the sum of the known costs of its attempts.

    `record` has the columns of its record as texts. `compared_with` is the id of the content before it.
    """

    audit: Audit
    record: Mapping[str, str] | None
    prompt: SentPrompt | None
    answer: GivenAnswer
    cost_usd: Decimal
    unpriced: int
    perhaps_usd: Decimal
    is_current: bool
    compared_with: str | None


def show_one(engine: Engine, query: GenerationQuery) -> GenerationView:
    """Read a generation. Raises NotFoundError if no generation, or more than one, has this id."""
    audit = read_generation(engine, query.id, LINEAGE)
    if audit is None:
        raise NotFoundError(
            f"There is no generation, or more than one, whose id starts or ends with {query.id!r}. "
            "Give the whole id, or at least 6 characters of its start or end."
        )
    return GenerationView(
        audit=audit,
        record=None if audit.record is None else _fields(orjson.loads(audit.record)),
        prompt=sent_prompt(engine, audit),
        answer=_answer(audit),
        cost_usd=sum((each["cost_usd"] for each in audit.attempts if each["cost_usd"] is not None), Decimal(0)),
        unpriced=sum(_is_unpriced(each) for each in audit.attempts),
        perhaps_usd=sum(filter(None, map(_perhaps_billed, audit.attempts)), Decimal(0)),
        is_current=audit.content is not None and audit.content["generation_id"] == audit.generation["id"],
        compared_with=_compared_with(audit),
    )


def _answer(audit: Audit) -> GivenAnswer:
    value = (audit.source or audit.generation)["output"]
    texts = [attempt["output_text"] for attempt in audit.attempts if attempt["output_text"] is not None]
    return GivenAnswer(_fields(value), value, texts[-1] if texts else None)


def _fields(value: Any) -> dict[str, str]:
    return {name: as_text(item) for name, item in value.items()} if isinstance(value, dict) else {}


def _compared_with(audit: Audit) -> str | None:
    has_answer = audit.generation["status"] == SUCCEEDED and audit.other_text is not None
    return audit.other_text.id if has_answer and audit.other_text else None


def _is_unpriced(attempt: Mapping[str, Any]) -> bool:
    # As in figures.py: an answer counts even if the endpoint did not report its usage.
    is_answered = attempt["input_tokens"] is not None or attempt["output_text"] is not None
    return attempt["cost_usd"] is None and is_answered


def _perhaps_billed(attempt: Mapping[str, Any]) -> Decimal | None:
    was_lost = attempt["ended_at"] is None or attempt["error_type"] in PERHAPS_BILLED
    likely: Decimal | None = attempt["likely_cost_usd"]
    return likely if was_lost and attempt["cost_usd"] is None else None


GENERATION = Page("/generations/{id}", GenerationQuery, show_one, "generation.html")
