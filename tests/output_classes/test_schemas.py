"""Make the schema that the API accepts: unsupported classes are found before a request, bounds become words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from random import Random
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple

import orjson
import pytest
from anthropic import AsyncAnthropic, transform_schema
from pydantic import (
    UUID4,
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FutureDatetime,
    HttpUrl,
    NaiveDatetime,
    PastDate,
    RootModel,
    WithJsonSchema,
    create_model,
)

import flows.outputs
from presswork.claude.output_schema import output_schema
from presswork.errors import OutputClassError
from presswork.output_classes.references import write_out
from presswork.output_classes.schemas import full_schema, notes_on
from presswork.output_classes.validate import Content, validate_answer
from sandbox import Sandbox
from tests.pieces import KEY


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
    """A class with everything that an output class may have."""

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
async def test_api_accepts_the_schema_and_its_answer_is_content(output_class: type[BaseModel]) -> None:
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


def test_class_that_is_used_several_times_is_no_recursion() -> None:
    assert set(output_schema(Shared)["properties"]) == {"one", "two", "many"}


@pytest.mark.parametrize(("output_class", "name"), [(Tree, "Tree"), (Ping, "Ping"), (Pong, "Pong"), (Holder, "Tree")])
def test_class_that_contains_itself_is_refused(output_class: type[BaseModel], name: str) -> None:
    with pytest.raises(OutputClassError, match=r"contains itself\. Nest to a fixed depth") as raised:
        output_schema(output_class)

    assert output_class.__name__ in str(raised.value)
    assert name in str(raised.value)


def one_field(annotation: Any) -> type[BaseModel]:
    return type("One", (BaseModel,), {"__annotations__": {"counts": annotation}, "__module__": __name__})


@pytest.mark.parametrize("annotation", [Any, object, list, list[Any], list[list[Any]], tuple], ids=str)
def test_field_without_a_type_is_rejected_with_its_place(annotation: Any) -> None:
    with pytest.raises(OutputClassError, match="'One': counts has no type, and the API needs one"):
        output_schema(one_field(annotation))


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
def test_mapping_with_free_keys_is_rejected_with_its_place(make: Callable[[], type[BaseModel]], where: str) -> None:
    with pytest.raises(OutputClassError, match="a mapping with free keys, which Claude would leave empty") as raised:
        output_schema(make())

    assert where in str(raised.value)


@pytest.mark.parametrize("annotation", [Any, object, Callable[[], int]], ids=str)
def test_field_without_a_json_type_is_rejected(annotation: Any) -> None:
    with pytest.raises(OutputClassError, match="'One'"):
        output_schema(one_field(annotation))


def test_class_that_pydantic_can_not_build_is_rejected() -> None:
    annotation: Any = "Nowhere"
    unfinished = create_model("Unfinished", part=(annotation, ...))

    with pytest.raises(OutputClassError, match="'Unfinished' has no JSON schema"):
        output_schema(unfinished)


# Keywords next to a reference, and the limits that pydantic leaves out of its schema


def sent_field(annotation: Any, field: Any = ...) -> dict[str, Any]:
    made: type[BaseModel] = create_model("One", value=(annotation, field))
    found: dict[str, Any] = properties(made)["value"]
    return found


class Mood(Enum):
    """How it sounds."""

    CALM = "calm"
    LOUD = "loud"


class Room(BaseModel):
    """A room of the house."""

    area: int = Field(ge=7, description="In square metres")


SAID = Field(description="What the field says")


@pytest.mark.parametrize(
    ("annotation", "own"),
    [(Mood, "How it sounds."), (Room, "A room of the house."), (Colour, "")],
    ids=["enum", "nested class", "enum without a docstring"],
)
def test_description_of_a_field_reaches_claude_together_with_that_of_its_type(annotation: Any, own: str) -> None:
    for holder in (annotation, Annotated[annotation, SAID] | None, list[Annotated[annotation, SAID]]):
        text = orjson.dumps(sent_field(holder, SAID)).decode()

        assert "What the field says" in text
        assert own in text or "$ref" in text


def test_a_field_with_a_description_still_has_its_types_shape() -> None:
    assert sent_field(Mood, SAID)["enum"] == ["calm", "loud"]
    assert sent_field(Room, SAID)["properties"]["area"]["description"] == "In square metres\n\n{minimum: 7}"
    assert sent_field(Room, SAID)["description"] == "What the field says\n\nA room of the house."


def test_editing_such_a_description_changes_the_schema() -> None:
    assert sent_field(Mood, Field(description="One")) != sent_field(Mood, Field(description="Another"))


def test_default_title_and_examples_next_to_a_reference_are_kept() -> None:
    field = Field(default=Mood.LOUD, title="The mood", examples=["calm"], deprecated=True, json_schema_extra={"x": 5})
    found = sent_field(Mood, field)

    assert found["title"] == "The mood"
    for told in ("default: loud", "examples: ['calm']", "deprecated: True", "x: 5", "How it sounds."):
        assert told in found["description"]


def test_bare_reference_stays_a_reference_and_unused_definitions_go() -> None:
    class Bare(BaseModel):
        first: Room
        second: Room = SAID
        mood: Mood = SAID

    schema = output_schema(Bare)

    assert schema["properties"]["first"] == {"$ref": "#/$defs/Room"}
    assert set(schema["$defs"]) == {"Room"}


def test_root_that_is_a_reference_is_kept_with_its_description() -> None:
    schema = output_schema(RootModel[Annotated[Room, SAID]])

    assert "What the field says" in schema["description"]
    assert schema["properties"]["area"]["type"] == "integer"


def test_bound_of_a_type_is_sent_if_the_field_has_a_tighter_one() -> None:
    schema = {"$ref": "#/$defs/Short", "maxLength": 5, "$defs": {"Short": {"type": "string", "maxLength": 9}}}

    assert write_out(schema) == {"type": "string", "maxLength": 5, "description": "{maxLength: 9}"}


def test_allof_with_a_reference_is_written_out() -> None:
    room = {"type": "string", "description": "A room"}
    alone = {"allOf": [{"$ref": "#/$defs/Room"}], "description": "Mine", "$defs": {"Room": room}}
    two = {"allOf": [{"$ref": "#/$defs/Room"}, {"type": "string"}], "$defs": {"Room": room}}

    assert write_out(alone) == {"type": "string", "description": "Mine\n\nA room"}
    assert write_out(two) == {"allOf": [room, {"type": "string"}]}


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        (Annotated[Decimal, Field(max_digits=7, decimal_places=3)], ["max_digits: 7", "decimal_places: 3"]),
        (Annotated[Decimal | None, Field(max_digits=7)], ["max_digits: 7"]),
        (list[Annotated[Decimal, Field(decimal_places=4)]], ["decimal_places: 4"]),
        (Annotated[date, Field(ge=date(2031, 2, 3))], ["minimum: 2031-02-03"]),
        (Annotated[date | None, Field(lt=date(2031, 2, 3))], ["exclusiveMaximum: 2031-02-03"]),
        (Annotated[datetime, Field(gt=datetime(2031, 2, 3, tzinfo=UTC))], ["exclusiveMinimum: 2031-02-03T00:00:00Z"]),
        (Annotated[time, Field(le=time(12, 30))], ["maximum: 12:30:00"]),
        (Annotated[timedelta, Field(le=timedelta(days=3))], ["maximum: P3D"]),
        (PastDate, ["must lie in the: past"]),
        (FutureDatetime, ["must lie in the: future"]),
        (AwareDatetime, ["time zone: required"]),
        (NaiveDatetime, ["time zone: none"]),
        (HttpUrl, ["schemes: http or https"]),
        (Annotated[str, AfterValidator(str), Field(pattern="^a")], ["pattern: ^a"]),
        (
            Annotated[str, Field(pattern="^a"), AfterValidator(str), Field(pattern="z$")],
            ["pattern: ^a", "pattern 2: z$"],
        ),
        (set[Annotated[int, Field(ge=11)]], ["uniqueItems: True", "minimum: 11"]),
        (Annotated[int | str, Field(ge=3)], ["ge: 3"]),
        (UUID4, ["format: uuid4"]),
    ],
    ids=str,
)
def test_limit_that_pydantic_checks_is_sent(annotation: Any, told: list[str]) -> None:
    text = orjson.dumps(sent_field(annotation)).decode()

    assert [limit for limit in told if limit not in text] == []


def test_schema_without_such_limits_is_pydantics_own() -> None:
    for output_class in OUTPUTS:
        assert full_schema(output_class) == output_class.model_json_schema()


class Place(NamedTuple):
    city: Annotated[str, Field(description="Its name")]
    people: Annotated[int, Field(ge=21)] = 30


def test_positions_of_a_tuple_are_described() -> None:
    found = sent_field(tuple[Annotated[float, Field(ge=-90, description="North")], Room, int])

    assert "maxItems: 3, minItems: 3" in found["description"]
    variants = found["items"]["anyOf"]
    assert variants[0] == {"type": "number", "description": "Position 1: North\n\n{minimum: -90}"}
    assert variants[1]["description"] == "Position 2\n\nA room of the house."
    assert variants[2] == {"type": "integer", "description": "Position 3"}
    named = orjson.dumps(output_schema(create_model("Named", place=(Place, ...)))).decode()
    assert "Position 1: Its name" in named
    assert "minimum: 21" in named


def test_tuple_of_equal_positions_is_a_list_of_its_length() -> None:
    found = sent_field(tuple[float, float])

    assert found["items"] == {"type": "number"}
    assert "maxItems: 2, minItems: 2" in found["description"]


class Exact(BaseModel):
    """Limits that are only words in the schema. The sandbox must follow them, as Claude does."""

    pair: tuple[int, str]
    place: Place
    spot: tuple[Annotated[float, Field(le=90)], Annotated[float, Field(ge=100)]]
    room: Room = SAID
    mood: Mood = SAID
    price: Decimal = Field(max_digits=4, decimal_places=1)
    whole: Decimal | None = Field(max_digits=4, decimal_places=0)
    later: date = Field(ge=date(2031, 1, 1))
    born: PastDate
    local: NaiveDatetime


@pytest.mark.parametrize("about", ["tea", "coffee", "cups"])
async def test_sandbox_follows_limits_that_are_only_words(about: str) -> None:
    async with Sandbox() as sandbox, AsyncAnthropic(api_key=KEY, base_url=sandbox.url, max_retries=0) as sdk:
        answer = await sdk.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=4096,
            messages=[{"role": "user", "content": f"Write about {about}."}],
            output_config={"format": {"type": "json_schema", "schema": output_schema(Exact)}},
        )

    text = "".join(block.text for block in answer.content if block.type == "text")
    assert isinstance(validate_answer(Exact, text), Content), text


# The API's limits


def wide(optional: int = 0, unions: int = 0) -> type[BaseModel]:
    fields: dict[str, Any] = {f"optional_{number}": (str, "") for number in range(optional)}
    fields |= {f"union_{number}": (str | None, ...) for number in range(unions)}
    made: type[BaseModel] = create_model("Wide", **fields)
    return made


def holding(inner: type[BaseModel], uses: int) -> type[BaseModel]:
    made: type[BaseModel] = create_model("Holding", **{f"part_{n}": (inner, ...) for n in range(uses)})  # type: ignore[call-overload]
    return made


def notes(output_class: type[BaseModel]) -> list[str]:
    return notes_on(full_schema(output_class), output_schema(output_class))


def test_optional_fields_and_unions_up_to_the_apis_limits_pass() -> None:
    assert notes(wide(optional=24, unions=16)) == []


@pytest.mark.parametrize(
    ("output_class", "told"),
    [
        (wide(optional=25), "it has 25 optional fields, and the limit is 24"),
        (wide(unions=17), "it has 17 fields of a union type .*, and the limit is 16"),
        (wide(optional=30, unions=20), "30 optional fields.*It has 20 fields of a union type"),
        (create_model("Deep", own=(str, ""), inner=(wide(optional=24), ...)), "25 optional fields"),
    ],
    ids=["optional", "unions", "both", "nested"],
)
def test_more_are_rejected_before_a_request(output_class: type[BaseModel], told: str) -> None:
    with pytest.raises(OutputClassError, match=told):
        output_schema(output_class)


def test_excess_that_depends_on_counting_each_use_is_a_note() -> None:
    (note,) = notes(holding(wide(optional=10, unions=6), uses=3))

    assert "counts a nested class at each use" in note
    assert "30 optional fields" in note
    assert "18 fields of a union type" in note


def test_schema_of_unusual_size_is_a_note() -> None:
    fields: dict[str, Any] = {
        f"a_rather_long_field_name_{number}": (Literal["yes", "no", "maybe"], ...) for number in range(90)
    }

    assert notes(wide(unions=3)) == []
    (note,) = notes(create_model("Huge", **fields))
    assert "unusually large" in note


def test_words_do_not_count_for_the_size() -> None:
    assert notes(create_model("Wordy", text=(str, Field(description="word " * 5000)))) == []


def test_keyword_that_does_not_reach_claude_is_named() -> None:
    extra = {"oneOf": [{"type": "string"}], "anyOf": [{"type": "string"}, {"type": "null"}]}

    class Odd(BaseModel):
        model_config = ConfigDict(extra="allow")

        plain: str
        odd: Annotated[str, WithJsonSchema(extra)]

    found = notes(Odd)

    assert any("odd: `oneOf` does not reach Claude" in note for note in found)
    assert any("extra fields are allowed" in note for note in found)


# Random classes: each word and number in them occurs once, so the test sees whether it is sent


class Sown:
    """Makes a class from a seed, and keeps the words and numbers that must reach Claude."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.marks: list[str] = []
        self._count = 1000 + seed

    def word(self) -> str:
        self._count += 1
        self.marks.append(f"word{self._count}w")
        return self.marks[-1]

    def number(self) -> int:
        self._count += 1
        self.marks.append(str(self._count))
        return self._count

    def day(self) -> date:
        self._count += 1
        made = date(2100, 1, 1) + timedelta(days=self._count)
        self.marks.append(made.isoformat())
        return made

    def field(self, **bounds: Any) -> Any:
        told: dict[str, Any] = {"description": self.word()}
        if self.random.random() < 0.3:
            told["alias"] = self.word()
        if self.random.random() < 0.2:
            told["examples"] = [self.word()]
        return Field(**told, **bounds)

    def enum(self) -> Any:
        members = [self.word() for _ in range(self.random.randint(1, 4))]
        made = Enum(f"Enum{self._count}", {f"m{number}": member for number, member in enumerate(members)})  # type: ignore[misc]
        if self.random.random() < 0.5:
            made.__doc__ = self.word()
        return made

    def simple(self) -> tuple[Any, dict[str, Any]]:
        kinds: list[Callable[[], tuple[Any, dict[str, Any]]]] = [
            lambda: (str, {"min_length": self.number(), "max_length": self.number()}),
            lambda: (str, {"pattern": f"^{self.word()}"}),
            lambda: (Annotated[str, AfterValidator(str)], {"pattern": f"^{self.word()}", "max_length": self.number()}),
            lambda: (int, {"ge": self.number(), "lt": self.number()}),
            lambda: (float, {"gt": self.number(), "le": self.number(), "multiple_of": self.number()}),
            lambda: (Decimal, {"max_digits": self.number(), "decimal_places": self.number(), "ge": self.number()}),
            lambda: (date, {"ge": self.day(), "lt": self.day()}),
            lambda: (bool, {}),
            lambda: (self.enum(), {}),
            lambda: (Literal[self.word()], {}),
            lambda: (
                set[Annotated[int, Field(ge=self.number(), description=self.word())]],
                {"max_length": self.number()},
            ),
        ]
        return self.random.choice(kinds)()

    def told(self, annotation: Any, **bounds: Any) -> Any:
        return Annotated[annotation, Field(description=self.word(), **bounds)]

    def kind(self, depth: int) -> tuple[Any, dict[str, Any]]:
        if not depth or self.random.random() < 0.4:
            annotation, bounds = self.simple()
            if self.random.random() < 0.25:
                return GenericAlias(list, self.told(annotation, **bounds)), {"max_length": self.number()}
            return (annotation | None if self.random.random() < 0.2 else annotation), bounds
        inner: Any = self.model(depth - 1)
        part, bounds = self.simple()
        some: Any = self.told(part, **bounds)
        nested: list[Callable[[], Any]] = [
            lambda: GenericAlias(tuple, (inner, some)),
            lambda: GenericAlias(tuple, (self.told(inner), int, some)),
            lambda: self.told(inner) | some,
            lambda: inner | some | None,
            lambda: GenericAlias(list, self.told(inner) | some),
        ]
        return self.random.choice(nested)(), {}

    def model(self, depth: int = 2) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for number in range(self.random.randint(3, 5)):
            annotation, bounds = self.kind(depth)
            fields[f"field_{number}"] = (annotation, self.field(**bounds))
        made: type[BaseModel] = create_model(f"Model{self._count}", __doc__=self.word(), **fields)
        return made


@pytest.mark.parametrize("seed", range(20))
def test_every_word_and_bound_of_a_random_class_reaches_the_request_or_is_named(seed: int) -> None:
    sown = Sown(seed)
    written = full_schema(sown.model())
    sent = transform_schema(written)  # without the limits, which some of these classes exceed
    told = orjson.dumps(sent).decode() + " ".join(notes_on(written, sent))

    assert len(sown.marks) > 10
    assert [mark for mark in sown.marks if mark not in told] == []


def test_field_may_be_named_like_a_keyword_of_json_schema() -> None:
    keywords = {"type": str, "properties": str, "required": list[str], "additionalProperties": bool}
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in keywords.items()}

    assert properties(create_model("Keywords", **fields)).keys() == keywords.keys()
