"""The output class as the API takes it: what it can't take is found before a request, bounds are told in words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import orjson
import pytest
from anthropic import AsyncAnthropic
from pydantic import BaseModel, ConfigDict, Field, RootModel

import flows.outputs
from flows.errors import OutputClassError
from flows.sandbox import Sandbox
from flows.steps.complete import output_schema
from flows.steps.validate import validate_answer
from tests.steps.conftest import KEY


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    label: str = Field(min_length=1, max_length=8)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]


class Everything(BaseModel):
    """All that an output class may have."""

    model_config = ConfigDict(extra="allow")

    text: str = Field(min_length=2, max_length=9, pattern="^[a-z]+$", description="Some letters")
    number: float = Field(gt=0, lt=5)
    day: date
    yes: bool
    colour: Colour
    size: Literal["small", "large"]
    maybe: str | None = None
    either: int | str
    parts: list[Part] = Field(min_length=2, max_length=3)
    nested: Part
    pet: Cat | Dog = Field(discriminator="kind")
    price: Decimal | None = None


def properties(output_class: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = output_schema(output_class)["properties"]
    return found


def test_bounds_that_the_api_does_not_enforce_go_into_the_descriptions() -> None:
    found = properties(Everything)

    assert found["text"]["description"].startswith("Some letters")
    for bound in ("minLength: 2", "maxLength: 9", "pattern: ^[a-z]+$"):
        assert bound in found["text"]["description"]
    assert "exclusiveMinimum: 0" in found["number"]["description"]
    assert "minItems: 2" in found["parts"]["description"]
    assert "maxItems: 3" in found["parts"]["description"]
    text = orjson.dumps(output_schema(Everything)).decode()
    assert not {'"minLength"', '"maximum"', '"pattern"', '"maxItems"', '"exclusiveMinimum"'} & set(text.split(":"))


def test_objects_are_closed_and_know_what_is_required() -> None:
    schema = output_schema(Everything)

    assert schema["additionalProperties"] is False
    assert "maybe" not in schema["required"]
    assert "either" in schema["required"]
    assert all(
        part["additionalProperties"] is False for part in schema["$defs"].values() if part.get("type") == "object"
    )


def test_optional_fields_unions_enums_and_nesting_stay_what_they_are() -> None:
    found = properties(Everything)

    assert [variant["type"] for variant in found["maybe"]["anyOf"]] == ["string", "null"]
    assert {variant["type"] for variant in found["either"]["anyOf"]} == {"integer", "string"}
    assert found["size"]["enum"] == ["small", "large"]
    assert output_schema(Everything)["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert found["nested"]["$ref"] == "#/$defs/Part"
    assert len(found["pet"]["anyOf"]) == 2
    assert found["day"]["format"] == "date"


OUTPUTS = [
    value
    for value in vars(flows.outputs).values()
    if isinstance(value, type) and issubclass(value, flows.outputs.Output) and value is not flows.outputs.Output
]


@pytest.mark.parametrize("output_class", [Everything, *OUTPUTS], ids=lambda output_class: output_class.__name__)
async def test_schema_is_one_that_the_api_takes_and_its_answer_is_content(output_class: type[BaseModel]) -> None:
    async with Sandbox() as sandbox, AsyncAnthropic(api_key=KEY, base_url=sandbox.url, max_retries=0) as sdk:
        answer = await sdk.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=4096,
            messages=[{"role": "user", "content": "Write about tea."}],
            output_config={"format": {"type": "json_schema", "schema": output_schema(output_class)}},
        )

    assert answer.stop_reason == "end_turn"
    if output_class is not Everything:
        text = "".join(block.text for block in answer.content if block.type == "text")
        assert type(validate_answer(output_class, text)).__name__ == "Content"


class Tree(BaseModel):
    children: list[Tree]


class Ping(BaseModel):
    pong: Pong | None


class Pong(BaseModel):
    pings: list[Ping]


class Holder(BaseModel):
    tree: Tree


class Deep(BaseModel):
    inner: MappingOf


class MappingOf(BaseModel):
    counts: list[dict[str, int]]


class Shared(BaseModel):
    one: Part
    two: Part
    many: list[Part]


def test_part_that_stands_in_several_places_is_no_recursion() -> None:
    assert set(output_schema(Shared)["properties"]) == {"one", "two", "many"}


@pytest.mark.parametrize(("output_class", "name"), [(Tree, "Tree"), (Ping, "Ping"), (Pong, "Pong"), (Holder, "Tree")])
def test_class_that_contains_itself_is_refused(output_class: type[BaseModel], name: str) -> None:
    with pytest.raises(OutputClassError, match=r"contains itself\. Nest to a fixed depth") as raised:
        output_schema(output_class)

    assert output_class.__name__ in str(raised.value)
    assert name in str(raised.value)


def one_field(annotation: Any) -> type[BaseModel]:
    return type("One", (BaseModel,), {"__annotations__": {"counts": annotation}, "__module__": __name__})


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: one_field(dict[str, int]), "counts"),
        (lambda: one_field(dict[str, Any]), "counts"),
        (lambda: one_field(dict), "counts"),
        (lambda: one_field(list[dict[str, int]]), "counts"),
        (lambda: one_field(dict[str, int] | None), "counts"),
        (lambda: one_field(dict[Literal["a", "b"], int]), "counts"),
        (lambda: one_field(dict[Annotated[str, Field(pattern="^a")], int]), "counts"),
        (lambda: Deep, "MappingOf.counts"),
        (lambda: RootModel[dict[str, int]], "it is a mapping"),
    ],
    ids=["ints", "any", "bare", "in a list", "optional", "literal keys", "pattern keys", "nested", "top"],
)
def test_mapping_with_free_keys_is_refused_by_its_place(make: Callable[[], type[BaseModel]], where: str) -> None:
    with pytest.raises(OutputClassError, match="a mapping with free keys, which would come back empty") as raised:
        output_schema(make())

    assert where in str(raised.value)


@pytest.mark.parametrize("annotation", [Any, object, Callable[[], int]], ids=str)
def test_field_without_a_type_that_json_has_is_refused(annotation: Any) -> None:
    with pytest.raises(OutputClassError, match="'One'"):
        output_schema(one_field(annotation))


def test_class_that_pydantic_could_not_finish_is_refused() -> None:
    class Unfinished(BaseModel):
        part: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(OutputClassError, match="'Unfinished' has no JSON schema"):
        output_schema(Unfinished)


def test_field_may_be_named_like_a_keyword_of_json_schema() -> None:
    class Keywords(BaseModel):
        type: str
        properties: str
        required: list[str]
        additionalProperties: bool  # noqa: N815

    assert set(properties(Keywords)) == {"type", "properties", "required", "additionalProperties"}
