"""Validate answers by every constraint, whether the API enforces it or not. No fault quotes the answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
    field_validator,
    model_validator,
)

from flows.outputs import Output, words
from presswork.errors import OutputClassError
from presswork.output_classes.classes import load_output_class
from presswork.output_classes.validate import Content, Invalid, validate_answer, validate_stored
from tests.pieces import Note


class Parcel(Output):
    code: str = Field(pattern=r"^[A-Z]{2}\d{2}$", default="AB12")
    name: str = Field(min_length=2, max_length=10, default="name")
    weight: float = Field(gt=0, lt=100, default=1)
    stops: list[str] = Field(min_length=1, max_length=2, default=["a"])
    text: Annotated[str, words(2, 4)] = "two words"
    kind: Literal["letter", "box"] = "letter"
    even: int = Field(multiple_of=2, default=2)

    @model_validator(mode="after")
    def _a_box_has_two_stops(self) -> Parcel:
        if self.kind == "box" and len(self.stops) != 2:
            raise ValueError("a box stops twice")
        return self


def faults(output_class: type[BaseModel], text: str) -> list[tuple[str, str]]:
    judged = validate_answer(output_class, text)
    assert isinstance(judged, Invalid)
    return [(fault.where, fault.what) for fault in judged.faults]


@pytest.mark.parametrize("text", ["", " \n"])
def test_answer_without_text_is_named_as_such(text: str) -> None:
    assert faults(Parcel, text) == [("", "The answer has no text")]


@pytest.mark.parametrize(
    ("answer", "where", "what"),
    [
        ({"code": "SECRET"}, "code", "String should match pattern"),
        ({"name": "S"}, "name", "String should have at least 2 characters"),
        ({"name": "SECRETSECRET"}, "name", "String should have at most 10 characters"),
        ({"weight": 0}, "weight", "Input should be greater than 0"),
        ({"weight": 100}, "weight", "Input should be less than 100"),
        ({"weight": "SECRET"}, "weight", "Input should be a valid number"),
        ({"stops": []}, "stops", "List should have at least 1 item"),
        ({"stops": ["SECRET"] * 3}, "stops", "List should have at most 2 items"),
        ({"stops": ["a", 5]}, "stops.1", "Input should be a valid string"),
        ({"text": "SECRET"}, "text", "must have 2 to 4 words, and has 1"),
        ({"kind": "SECRET"}, "kind", "Input should be 'letter' or 'box'"),
        ({"kind": "box"}, "", "a box stops twice"),
        ({"even": 3}, "even", "Input should be a multiple of 2"),
        ({"colour": "SECRET"}, "colour", "Extra inputs are not permitted"),
    ],
)
def test_each_constraint_is_checked_and_reported_with_its_place(answer: dict[str, Any], where: str, what: str) -> None:
    ((found_where, found_what),) = faults(Parcel, orjson.dumps(answer).decode())

    assert found_where == where
    assert found_what.startswith(what)
    assert "SECRET" not in found_what


@pytest.mark.parametrize("text", ["", "SECRET", "{", '{"title": "SECRET"', "null", "[]", '"SECRET"'])
def test_answer_that_is_not_an_object_is_reported_without_quoting_it(text: str) -> None:
    ((where, what),) = faults(Note, text)

    assert where == ""
    assert "SECRET" not in what


def test_at_most_ten_faults_are_reported() -> None:
    class Long(BaseModel):
        numbers: list[int]

    assert [where for where, _ in faults(Note, '{"title":"x","stars":9}')] == ["title", "stars"]
    assert len(faults(Long, orjson.dumps({"numbers": ["x"] * 50}).decode())) == 10


def test_invented_name_is_shortened() -> None:
    ((where, _),) = faults(Note, orjson.dumps({"title": "Fine", "stars": 1, "x" * 5000: 1}).decode())

    assert where == "x" * 60


def test_tag_of_a_union_is_not_quoted() -> None:
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    class Pet(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    assert faults(Pet, '{"pet": {"kind": "SECRET"}}') == [("pet", "Its tag is none of those that the schema names")]


def test_invalid_reads_as_a_sentence() -> None:
    assert str(validate_answer(Note, '{"title":"Fine","stars":9}')) == (
        "stars: Input should be less than or equal to 5"
    )
    assert str(validate_answer(Note, "no JSON")).startswith("Invalid JSON: ")


# Content


def test_content_is_plain_json_and_its_hash_does_not_depend_on_order() -> None:
    class Dated(BaseModel):
        day: date
        price: Decimal
        note: str | None = None

    one = validate_answer(Dated, '{"day":"2026-11-22","price":"3.50"}')
    two = validate_answer(Dated, '{ "price": "3.50", "note": null, "day": "2026-11-22" }')

    assert isinstance(one, Content)
    assert isinstance(two, Content)
    assert one.output == {"day": "2026-11-22", "price": "3.50", "note": None}
    assert one.hash == two.hash


def test_hash_of_content_is_pinned() -> None:
    content = validate_answer(Note, '{"title":"Grüße","stars":4}')

    assert isinstance(content, Content)
    assert content.hash == "ac28a13f89200690981592a79ff2c117e1e13569d113fa0bf4da0124f8113787"


@pytest.mark.parametrize("text", ["\N{HOT BEVERAGE}", "שלום", "{{ 7*7 }}", "<b>", "\\u0000", "\u2028"])
def test_text_of_all_kinds_is_content(text: str) -> None:
    content = validate_answer(Note, orjson.dumps({"title": f"abc{text}", "stars": 1}).decode())

    assert isinstance(content, Content)
    assert content.output["title"] == f"abc{text}"


class Loose(BaseModel):
    text: str = ""
    number: float = 0
    whole: int = 0
    many: list[Any] = []
    more: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("answer", "where", "what"),
    [
        ('{"text": "a\\u0000b"}', "text", "contains a NUL character"),
        ('{"many": [["x", "\\u0000"]]}', "many.0.1", "contains a NUL character"),
        ('{"more": {"a\\u0000b": 1}}', "more", "contains a NUL character"),
        ('{"number": NaN}', "number", "is not a finite number"),
        ('{"number": 1e999}', "number", "is not a finite number"),
        ('{"number": -Infinity}', "number", "is not a finite number"),
        ('{"whole": 9223372036854775808}', "whole", "is a number of more than 64 bits"),
    ],
)
def test_unstorable_answer_is_not_content(answer: str, where: str, what: str) -> None:
    assert faults(Loose, answer) == [(where, what)]


@pytest.mark.parametrize("text", ['{"text": "\\ud83d"}', '{"text": "\ud83d"}', "[" * 100_000])
def test_unreadable_answer_is_invalid(text: str) -> None:
    assert faults(Loose, text)


def test_faulty_validator_fails_one_answer_and_no_run() -> None:
    class Broken(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def check(cls, text: str) -> str:
            return {"known": text}[text]

    assert faults(Broken, '{"text": "SECRET"}') == [("", "Broken fails on it with KeyError")]


# Stored content


class UnspokenError(ValueError):
    def __str__(self) -> str:
        raise KeyError("PRIVATE")


def leave() -> str:
    return sys.exit("PRIVATE")


def complain(error: BaseException) -> str:
    raise error


@pytest.mark.parametrize(
    ("spoil", "where", "what"),
    [
        (lambda: "half a pair: \ud800", "name", "contains half a surrogate pair"),
        (leave, "", "SystemExit"),
        (lambda: complain(KeyboardInterrupt()), "", "KeyboardInterrupt"),
        (lambda: complain(GeneratorExit()), "", "GeneratorExit"),
        (lambda: complain(RecursionError("PRIVATE")), "", "RecursionError"),
        (lambda: complain(UnspokenError()), "", "fails on it with"),
        (lambda: complain(ValueError("odd: \ud800")), "", ""),
    ],
)
def test_unforeseen_error_of_a_validator_fails_one_answer_and_no_run(
    spoil: Callable[[], str], where: str, what: str
) -> None:
    class Careless(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def check(cls, _name: str) -> str:
            return spoil()

    for judged in (validate_answer(Careless, '{"name":"a"}'), validate_stored(Careless, {"name": "a"})):
        assert isinstance(judged, Invalid)
        (fault,) = judged.faults
        assert fault.where == where
        assert what in fault.what
        assert "PRIVATE" not in str(judged)
        # It is sent to the model and stored.
        assert str(judged).encode()


def test_stored_answer_is_judged_by_the_current_class() -> None:
    class Stricter(Note):
        stars: int = Field(ge=1, le=3)

    content = validate_answer(Note, '{"title":"Fine","stars":4}')
    assert isinstance(content, Content)

    assert validate_stored(Note, content.output) == content
    assert isinstance(validate_stored(Stricter, content.output), Invalid)


@pytest.mark.parametrize("stored", [None, "text", [], {}, {"title": "Fine"}, {1: 2}, {"title": "\ud83d", "stars": 1}])
def test_stored_value_that_is_not_an_answer_is_a_miss(stored: Any) -> None:
    assert isinstance(validate_stored(Note, stored), Invalid)


def test_content_with_aliases_and_computed_fields_reads_back() -> None:
    class Named(BaseModel):
        model_config = ConfigDict(extra="forbid")
        kind: str = Field(alias="type")

        @computed_field  # type: ignore[prop-decorator]
        @property
        def length(self) -> int:
            return len(self.kind)

    content = validate_answer(Named, '{"type": "tea"}')

    assert isinstance(content, Content)
    assert content.output == {"type": "tea"}
    assert validate_stored(Named, content.output) == content


def test_list_at_the_top_reads_back() -> None:
    class Names(RootModel[list[str]]):
        pass

    content = validate_answer(Names, '["a", "b"]')

    assert isinstance(content, Content)
    assert validate_stored(Names, content.output) == content


def test_answer_that_would_not_read_back_is_not_content() -> None:
    class Wrapping(BaseModel):
        text: str = Field(max_length=8)

        @field_validator("text", mode="after")
        @classmethod
        def wrap(cls, text: str) -> str:
            return f"<<{text}>>"

    # If it were stored, each later run would miss it and pay again.
    assert faults(Wrapping, '{"text": "12345"}') == [
        ("", "does not pass Wrapping a second time, as it was read the first")
    ]


# The class


def test_mistake_in_the_users_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise SyntaxError("invalid syntax (outputs.py, line 3)")

    monkeypatch.setattr("importlib.import_module", fail)

    with pytest.raises(OutputClassError, match=r"flows/outputs\.py can't be loaded: SyntaxError: .*line 3"):
        load_output_class("Note")


# JSON inside other text


NOTE = '{"title":"Fine","stars":4}'
OTHER = '{"title":"Poor","stars":1}'


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{NOTE}\n```",
        f"```\n{NOTE}\n```",
        f"```json\n{NOTE}",
        f"Here is the note:\n\n```json\n{NOTE}\n```\nI hope that it helps [as asked].",
        f"Here it is: {NOTE}",
        f"\ufeff{NOTE}",
        f"{NOTE} That is all.",
        f"{NOTE}\n{NOTE}",
        f'From {{"id": 7}} I made {NOTE}.',
        '```json\n{"title": "A } in ```json", "stars": 4}\n```',
    ],
)
def test_json_in_a_fence_or_in_a_sentence_is_content(text: str) -> None:
    judged = validate_answer(Note, text)

    assert isinstance(judged, Content)
    assert judged.output["stars"] == 4
    assert judged.unwrapped


def test_json_alone_is_not_unwrapped() -> None:
    judged = validate_answer(Note, f" {NOTE}\n")

    assert judged == validate_answer(Note, NOTE)
    assert isinstance(judged, Content)
    assert not judged.unwrapped


@pytest.mark.parametrize(
    "text",
    [
        f"{NOTE} or rather {OTHER}",
        f"```json\n{NOTE}\n```\n```json\n{OTHER}\n```",
        # Truncated: a complete part is not the answer.
        f'[{NOTE}, {{"title": "Po',
        f"[{NOTE}",
        f'{{"notes": [{NOTE}, {NOTE}',
        f'{{"note": {NOTE}',
        f"```json\n[{NOTE}, \n```",
        # Wrapped in JSON of unknown meaning.
        f'{{"note": {NOTE}}}',
        f"[{NOTE}]",
        "{" * 5_000 + NOTE,
        "[" * 100_000,
        "I can't do that.",
        "```json\n```",
        "",
    ],
)
def test_ambiguous_or_incomplete_answer_is_invalid(text: str) -> None:
    assert isinstance(validate_answer(Note, text), Invalid)


def test_fenced_answer_that_breaks_a_constraint_names_it() -> None:
    assert faults(Note, '```json\n{"title":"Fine","stars":9}\n```') == [
        ("stars", "Input should be less than or equal to 5")
    ]
