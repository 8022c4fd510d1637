"""Answers about odd records are valid, and contain numbers and names only as a whole."""

import random
import re
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, create_model

from tests.sandbox.test_sandbox_answers import answered, words

NAMES = (
    "Mountain Oolong No. 7",
    "J. R. Smith & Sons",
    "O'Neill-Garc\u00eda 3.5 mm",
    "\u7dd1\u8336 \u5b87\u6cbb",
    "\u0427\u0430\u0439 \u00ab\u041b\u0435\u0441\u00bb",
    "\u0634\u0627\u064a \u0623\u062e\u0636\u0631",
    "Kettle \U0001fad6 v2.4.1",
    "X",
)
NUMBERS = (
    "21.00 USD",
    "49,90 EUR",
    "1,250.50",
    "1.250,50 \u20ac",
    "-40 to 85 \u00b0C",
    "100 %",
    "0.8 l",
    "\u00bd kg",
    "3",
)
PHRASES = (
    "hand rolled",
    "keeps for 12 months at 5.5 \u00b0C",
    "made by A. B. Lee in 1987",
    "see https://example.com/a.b?c=1",
    "\u0441\u0434\u0435\u043b\u0430\u043d\u043e \u0432\u0440\u0443\u0447\u043d\u0443\u044e",
    "\u624b\u3067\u5dfb\u304b\u308c\u305f",
    "",
    "null",
    "two; three; 4,5 g",
    "It weighs 1,250.50 g. Store it dry. Ask a@b.example.",
)
LABELS = ("Features", "price_usd", "Weight", "Stock", "Description", "Origin", "Notes", "Rating", "Made in", "Orders")
# A number, with the separators inside it.
NUMBER = re.compile(r"\d(?:[\d.,:/-]*\d)?")


def record(draw: random.Random) -> tuple[str, str]:
    name = draw.choice(NAMES)
    lines = [f"Name: {name}"]
    for label in draw.sample(LABELS, draw.randint(0, 7)):
        value = "; ".join(draw.choices(PHRASES, k=draw.randint(1, 4)))
        lines.append(f"{label}: {draw.choice((value, value, draw.choice(NUMBERS)))}")
    return name, draw.choice(("\n", "\n\n", "\r\n")).join(lines)


def model(draw: random.Random) -> type[BaseModel]:
    low = draw.randint(5, 40)
    fields: dict[str, Any] = {
        "title": (str, Field(min_length=1, max_length=draw.randint(40, 90))),
        "summary": (str, Field(max_length=draw.randint(50, 200))),
        "text": (str, Field(min_length=draw.randint(0, 60), max_length=draw.randint(120, 900))),
        "body": (Annotated[str, words(low, low + 40)], Field(description=f"{low} to {low + 40} words")),
        "line": (str, Field(min_length=draw.randint(0, 12), max_length=draw.randint(12, 16))),
        "bullets": (list[str], Field(min_length=1, max_length=draw.randint(1, 3))),
        "price": (float, Field(ge=0, le=5_000)),
        "stock": (int, Field(ge=0)),
    }
    chosen = draw.sample(sorted(fields), draw.randint(1, len(fields)))
    return create_model("Odd", **{name: fields[name] for name in chosen})


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("seed", range(200))
def test_odd_record_has_a_valid_answer_with_whole_numbers_and_names(seed: int) -> None:
    draw = random.Random(seed)
    name, prompt = record(draw)
    odd = model(draw)
    answer = odd.model_validate_json(answered(odd, prompt)).model_dump()
    known = set(NUMBER.findall(prompt))
    assert all(known.issuperset(NUMBER.findall(text)) for text in texts(answer)), "a number is cut"
    answer.pop("line", None)  # too short for some names
    first = name.split()[0]
    if len(first) > 1:
        for text in texts(answer):
            assert len(re.findall(rf"(?<!\w){re.escape(first)}(?!\w)", text)) == text.count(name), "a name is cut"
