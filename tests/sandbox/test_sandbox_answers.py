"""Answers validate against the models whose constraints the SDK moved into descriptions, and read sensibly."""

import json
import re
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from anthropic import transform_schema
from pydantic import AfterValidator, AnyUrl, BaseModel, ConfigDict, Field

from sandbox.calls import read_call
from sandbox.faults import DrawnFault
from sandbox.replies import make_reply
from sandbox.spoiling import not_json

PROMPTS = (
    "Name: Mountain Oolong\nFeatures: hand rolled, floral aroma, spring harvest\nCategory: tea\nSku: T-17",
    "Customer: Ada Byron\nMessage: My order arrived broken and I want a refund immediately!! This is unacceptable.",
    "Summarise for the newsletter:\n1. New kettle in store\n2. Tasting evening on Friday\n3. Autumn teas have arrived",
    "Hi",
    "\u00dcber gr\u00fcnen Tee schreiben: \u7dd1\u8336 \ud83c\udf75",
)


def answered(model: type[BaseModel], prompt: str, fault: str = "") -> str:
    """The text that the sandbox answers, without HTTP."""
    call = read_call(
        {
            "model": "claude-sonnet-4-6",
            "max_tokens": 8000,
            "messages": [{"role": "user", "content": prompt}],
            "output_config": {"format": {"type": "json_schema", "schema": transform_schema(model)}},
        }
    )
    return str(make_reply(call, DrawnFault(fault, 0, b"0123456789abcdef")).content[0]["text"])


def words(low: int, high: int) -> AfterValidator:
    def check(text: str) -> str:
        count = len(text.split())
        if not low <= count <= high:
            raise ValueError(f"{count} words, not {low} to {high}: {text}")
        return text

    return AfterValidator(check)


class Tone(StrEnum):
    warm = "warm"
    bold = "bold"


class Offer(BaseModel):
    """An offer."""

    sku: str = Field(pattern=r"^[A-Z]{1,3}-\d{2,4}$")
    price: float = Field(gt=0, lt=9.5)
    amount: Decimal = Field(ge=1, le=20)


class Lengths(BaseModel):
    title: str = Field(min_length=10, max_length=80, description="A title")
    tiny: str = Field(max_length=9)
    exact: str = Field(min_length=5, max_length=5)
    long: str = Field(min_length=400, max_length=450)
    stripped: Annotated[str, Field(min_length=12, max_length=14)]
    meta_description: str | None = Field(None, max_length=155)

    model_config = ConfigDict(str_strip_whitespace=True)


class Words(BaseModel):
    body: Annotated[str, words(40, 80)] = Field(description="The copy, 40 to 80 words")
    between: Annotated[str, words(5, 9)] = Field(description="Between 5 and 9 words.")
    teaser: Annotated[str, words(1, 20)] = Field(description="A teaser of at most 20 words", max_length=120)
    exact: Annotated[str, words(7, 7)] = Field(description="exactly seven words")
    least: Annotated[str, words(30, 999)] = Field(description="At least 30 words")
    bullets: list[Annotated[str, words(3, 8)]] = Field(
        description="Bullet points of 3 to 8 words each", min_length=3, max_length=5
    )


class Patterns(BaseModel):
    code: str = Field(pattern=r"^[A-Z]{3}-\d{2,4}$")
    slug: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=30)
    choice: str = Field(pattern=r"^(yes|no|maybe)$")
    negated: str = Field(pattern=r"^[^\s,]{4,12}$")
    sentence: str = Field(pattern=r"^[A-Z].*\.$", max_length=200)
    hashtag: str = Field(pattern=r"^#\w+$", min_length=5, max_length=20)
    loose: str = Field(pattern=r"tea")


class Numbers(BaseModel):
    score: int = Field(ge=1, le=5)
    percent: float = Field(ge=0, le=100)
    above: int = Field(gt=10, lt=13)
    dozen: int = Field(ge=1, le=100, multiple_of=12)
    below: int = Field(le=-5)
    rate: float = Field(description="between 0 and 1")
    unbounded: int


class Lists(BaseModel):
    tags: list[str] = Field(min_length=3, max_length=5)
    one: list[Annotated[str, Field(max_length=12)]] = Field(min_length=1, max_length=1)
    many: list[str] = Field(min_length=30, max_length=40)
    offers: list[Offer] = Field(min_length=2, max_length=2)
    picks: list[int] = Field(min_length=1, max_length=3, description="Numbers of the best items")
    scores: list[Annotated[int, Field(ge=1, le=3)]] = Field(min_length=2, max_length=3)


class Kinds(BaseModel):
    """Nested, optional, united and formatted."""

    tone: Tone
    language: Literal["en", "de", 3]
    fixed: Literal["v1"]
    offer: Offer
    maybe: Offer | None = None
    choice: Annotated[Offer | Tone, Field()]
    day: date
    at: datetime
    link: AnyUrl
    id: UUID
    flag: bool
    empty: dict[str, str]
    nothing: None = None
    model_config = ConfigDict(extra="forbid")


@pytest.mark.parametrize("prompt", PROMPTS, ids=["product", "ticket", "list", "short", "unicode"])
@pytest.mark.parametrize("model", [Lengths, Words, Patterns, Numbers, Lists, Kinds, Offer])
def test_answer_validates(model: type[BaseModel], prompt: str) -> None:
    model.model_validate_json(answered(model, prompt))


@pytest.mark.parametrize("seed", range(40))
def test_answer_validates_whatever_the_prompt(seed: int) -> None:
    prompt = " ".join(f"word{seed}{n} and" for n in range(seed)) + f" topic {seed}"
    for model in (Lengths, Words, Patterns, Numbers, Lists):
        model.model_validate_json(answered(model, prompt))


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("model", [Lengths, Patterns, Numbers, Lists, Offer, Kinds])
def test_invalid_answer_is_json_that_does_not_validate(model: type[BaseModel], prompt: str) -> None:
    text = answered(model, prompt, "invalid")
    json.loads(text)
    with pytest.raises(ValueError, match="validation error"):
        model.model_validate_json(text)


def test_invalid_answer_without_hints_lacks_a_required_field() -> None:
    class Plain(BaseModel):
        title: str
        body: str

    assert len(json.loads(answered(Plain, PROMPTS[0], "invalid"))) == 1


@pytest.mark.parametrize("text", ["{}", '{"a": 1}', "[1, 2]", '"text"'])
def test_malformed_answer_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(not_json(text))


class Ticket(BaseModel):
    urgent: bool
    sentiment: Literal["positive", "neutral", "negative"]
    category: Literal["billing", "refund", "other"]
    reason: str


@pytest.mark.parametrize(("prompt", "urgent"), [(PROMPTS[1], True), ("Where do I find my invoice?", False)])
def test_upset_prompt_is_urgent_and_negative(prompt: str, urgent: bool) -> None:
    ticket = Ticket.model_validate_json(answered(Ticket, prompt))
    assert ticket.urgent is urgent
    assert (ticket.sentiment == "negative") is urgent
    assert (ticket.category == "refund") is urgent
    assert ticket.reason.startswith("Because")


class Copy(BaseModel):
    sku: str
    headline: str
    reply: str
    category: str


def test_fields_take_the_form_their_names_ask_for() -> None:
    copy = Copy.model_validate_json(answered(Copy, PROMPTS[0]))
    assert (copy.sku, copy.category) == ("T-17", "tea")
    assert "Mountain Oolong" in copy.headline
    assert 3 <= len(copy.headline.split()) <= 10
    reply = Copy.model_validate_json(answered(Copy, PROMPTS[1])).reply
    assert re.match(r"Hello Ada,\n\nThank you .*Kind regards,", reply, re.DOTALL)


def test_items_chosen_by_number_are_those_of_the_prompt() -> None:
    class Picks(BaseModel):
        best: int = Field(ge=1, le=50, description="Number of the best item")

    assert Picks.model_validate_json(answered(Picks, PROMPTS[2])).best in (1, 2, 3)


def test_items_of_a_list_are_distinct() -> None:
    value: dict[str, Any] = json.loads(answered(Lists, PROMPTS[0]))
    assert len(set(value["many"])) == len(value["many"]) >= 30
