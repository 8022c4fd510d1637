"""Output classes refuse what must not pass for content, and the API takes their schemas."""

from typing import Any

import anthropic
import pytest
from pydantic import ValidationError

from flows import outputs
from flows.outputs import Output


def said(count: int) -> str:
    return " ".join(["word"] * count)


VALID: dict[str, dict[str, Any]] = {
    "ProductCopy": {
        "title": "Harbour Breakfast, black tea for milk",
        "description": said(30),
        "bullets": ["125 g of loose leaf", "Stands up to milk", "4 minutes at 100 °C"],
        "meta_description": "Harbour Breakfast is a black tea from India and Kenya that stands up to milk.",
    },
    "TicketTriage": {
        "category": "delivery",
        "urgent": False,
        "answerable": True,
        "sentiment": "neutral",
        "language": "en",
        "summary": said(8),
    },
    "SupportReply": {"language": "ja", "subject": "煎茶の交換について", "body": "拝復" * 40},
    "ArticleSummary": {
        "headline": "Cooler water makes sencha sweet",
        "summary": said(30),
        "takeaway": said(10),
    },
    "DigestEntry": {"headline": "Cooler water makes sencha sweet", "teaser": said(20)},
    "NewsletterDigest": {
        "title": "A matter of degrees",
        "intro": said(40),
        "entries": [{"headline": "Cooler water makes sencha sweet", "teaser": said(20)}],
    },
    "SubjectLine": {"subject": "Nine of eleven liked it colder", "preheader": "And a bear with good manners"},
    "SubjectChoice": {"chosen": 3, "reason": said(12)},
    "AlbumNote": {
        "title": "Two guitars and a cannon",
        "note": said(40),
        "moments": ["Snowballed: the riff turns over", "C.O.D.: the shout", "Spellbound: the slow end"],
    },
    "CustomerThanks": {"language": "pt", "subject": "Um abraço e muito Cidade Negra", "body": said(60)},
}

INVALID: list[tuple[str, str, Any]] = [
    ("ProductCopy", "title", "Tea"),
    ("ProductCopy", "title", "T" * 71),
    ("ProductCopy", "title", "Harbour\nBreakfast"),
    ("ProductCopy", "description", said(24)),
    ("ProductCopy", "description", said(71)),
    ("ProductCopy", "bullets", ["125 g of loose leaf"] * 2),
    ("ProductCopy", "bullets", ["125 g of loose leaf"] * 6),
    ("ProductCopy", "bullets", ["125 g of loose leaf", "Stands up to milk", "short"]),
    ("ProductCopy", "meta_description", "m" * 161),
    ("TicketTriage", "category", "rant"),
    ("TicketTriage", "sentiment", "furious"),
    ("TicketTriage", "urgent", None),
    ("TicketTriage", "language", "English"),
    ("TicketTriage", "language", "EN"),
    ("TicketTriage", "summary", "  "),
    ("SupportReply", "body", ""),
    ("SupportReply", "body", "b" * 1801),
    ("SupportReply", "subject", "s" * 91),
    ("ArticleSummary", "summary", said(61)),
    ("ArticleSummary", "takeaway", said(4)),
    ("ArticleSummary", "headline", "h" * 81),
    ("NewsletterDigest", "entries", []),
    ("NewsletterDigest", "entries", [VALID["DigestEntry"]] * 9),
    ("NewsletterDigest", "entries", [VALID["DigestEntry"] | {"link": "https://example.com"}]),
    ("NewsletterDigest", "intro", said(91)),
    ("SubjectLine", "subject", "s" * 61),
    ("SubjectLine", "preheader", "short"),
    ("SubjectChoice", "chosen", 0),
    ("SubjectChoice", "chosen", 6),
    ("SubjectChoice", "chosen", "the third"),
    ("AlbumNote", "note", said(39)),
    ("AlbumNote", "note", said(81)),
    ("AlbumNote", "moments", ["Snowballed: the riff turns over"] * 2),
    ("AlbumNote", "moments", ["Snowballed: the riff turns over"] * 4),
    ("CustomerThanks", "body", said(121)),
    ("CustomerThanks", "language", "pt-BR"),
]


def output_class(name: str) -> type[Output]:
    found: type[Output] = getattr(outputs, name)
    return found


def test_table_covers_every_output_class() -> None:
    assert set(VALID) == {found.__name__ for found in Output.__subclasses__() if found.__module__ == outputs.__name__}


@pytest.mark.parametrize("name", VALID)
def test_smallest_sensible_answer_is_valid(name: str) -> None:
    answer = output_class(name).model_validate(VALID[name])

    assert answer.model_dump() == VALID[name]


@pytest.mark.parametrize(("name", "field", "value"), INVALID)
def test_answer_out_of_bounds_is_invalid(name: str, field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        output_class(name).model_validate(VALID[name] | {field: value})

    assert {error["loc"][0] for error in caught.value.errors()} == {field}


@pytest.mark.parametrize("name", VALID)
def test_unknown_and_missing_fields_are_refused(name: str) -> None:
    unknown = VALID[name] | {"confidence": 0.9}
    missing = dict(list(VALID[name].items())[1:])

    for answer in (unknown, missing):
        with pytest.raises(ValidationError):
            output_class(name).model_validate(answer)


@pytest.mark.parametrize("count", [40, 80])
def test_both_ends_of_a_word_count_are_inside_it(count: int) -> None:
    outputs.AlbumNote.model_validate(VALID["AlbumNote"] | {"note": said(count)})


def test_blanks_around_an_answer_do_not_count() -> None:
    padded = outputs.SubjectLine.model_validate(VALID["SubjectLine"] | {"subject": "  Nine of eleven\n"})

    assert padded.subject == "Nine of eleven"


def test_error_says_how_many_words_there_are() -> None:
    with pytest.raises(ValidationError, match="must have 40 to 80 words, and has 12"):
        outputs.AlbumNote.model_validate(VALID["AlbumNote"] | {"note": said(12)})


@pytest.mark.parametrize("name", VALID)
def test_api_takes_the_schema_and_every_field_is_described(name: str) -> None:
    schema = anthropic.transform_schema(output_class(name))

    assert schema["required"] == list(VALID[name])
    assert schema["additionalProperties"] is False
    for field in schema["properties"].values():
        assert field["description"]


@pytest.mark.parametrize(
    ("name", "field", "bound"),
    [
        ("ProductCopy", "description", "25 to 70 words"),
        ("TicketTriage", "summary", "3 to 40 words"),
        ("ArticleSummary", "summary", "25 to 60 words"),
        ("ArticleSummary", "takeaway", "5 to 25 words"),
        ("DigestEntry", "teaser", "10 to 45 words"),
        ("NewsletterDigest", "intro", "30 to 90 words"),
        ("SubjectChoice", "reason", "8 to 50 words"),
        ("AlbumNote", "note", "40 to 80 words"),
        ("CustomerThanks", "body", "40 to 120 words"),
    ],
)
def test_word_count_that_is_enforced_is_also_asked_for(name: str, field: str, bound: str) -> None:
    kind = output_class(name)
    fewest, most = (int(word) for word in bound.split() if word.isdigit())

    assert bound in kind.model_json_schema()["properties"][field]["description"]
    for count in (fewest, most):
        kind.model_validate(VALID[name] | {field: said(count)})
    for count in (fewest - 1, most + 1):
        with pytest.raises(ValidationError, match=bound):
            kind.model_validate(VALID[name] | {field: said(count)})
