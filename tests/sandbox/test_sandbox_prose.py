"""What the sandbox writes keeps numbers with their units, names and addresses whole, and differs by record."""

import pytest
from pydantic import BaseModel, Field

from sandbox.plain_text import sentences
from sandbox.record_fields import field_of, number_of
from tests.sandbox.test_sandbox_answers import answered


class Page(BaseModel):
    title: str = Field(max_length=70)
    text: str = Field(description="25 to 70 words of flowing text")
    bullets: list[str] = Field(min_length=3, max_length=5)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It costs 21.00 USD. Buy it.", ["It costs 21.00 USD.", "Buy it."]),
        ("J. R. Smith wrote it. Read on.", ["J. R. Smith wrote it.", "Read on."]),
        ("See https://example.com/a.b, e.g. today.", ["See https://example.com/a.b, e.g. today."]),
        ("Ask a.b@example.com about v2.4.1. Soon.", ["Ask a.b@example.com about v2.4.1.", "Soon."]),
    ],
)
def test_sentence_ends_where_it_ends(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("price: 21.00 USD", "a price of 21.00 USD"),
        ("price_usd: 21.00", "a price of 21.00 USD"),
        ("Orders: 7", "7 orders"),
        ("Tracks here: 1", "1 track here"),
        ("Balance: -3.50", "a balance of -3.50"),
        ("Released: 2026-03-01", "released 2026-03-01"),
    ],
)
def test_number_goes_by_its_label(line: str, phrase: str) -> None:
    field = field_of(line)
    assert field is not None
    assert [fact.phrase for fact in field.facts[1]] == [phrase]


@pytest.mark.parametrize("whole", ["21.00 USD", "1,750 hPa", "J. R. Smith", "-40 to 85 °C", "v1.2.3"])
def test_value_stays_whole_in_every_text(whole: str) -> None:
    prompt = f"Name: Widget\nFeatures: made to last; {whole}; black and quiet\nStock: 12"
    page = Page.model_validate_json(answered(Page, prompt))
    assert page.text.count(whole.rsplit(maxsplit=1)[-1]) == page.text.count(whole) > 0


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("21.00 USD", 21.0),
        ("49,90 EUR", 49.9),
        ("1,250.50", 1250.5),
        ("1.250,50 \u20ac", 1250.5),
        ("\u20ac -3,5", -3.5),
        ("1,250", 1250.0),
        ("7", 7.0),
        ("4 to 5", None),
        ("2026-03-01", None),
    ],
)
def test_number_is_read_with_either_decimal_sign(value: str, number: float | None) -> None:
    assert number_of(value) == number


def test_short_sentence_of_a_description_is_repeated() -> None:
    prompt = "Name: Rooibos\nDescription: A sweet tea. It has no caffeine and a colour of red earth."
    assert "A sweet tea." in Page.model_validate_json(answered(Page, prompt)).text
