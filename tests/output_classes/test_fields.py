"""Make the class that a user would write from the fields of a front matter, and report each mistake by its field."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import pytest
from pydantic import Field

import flows.outputs
from flows.outputs import Output
from presswork.errors import OutputClassError, TemplateError
from presswork.output_classes.fields import OutputField, class_name
from presswork.output_classes.validate import Content, Invalid, validate_answer, validate_stored
from presswork.prompts.front_matter import read_front_matter
from presswork.prompts.lint import lint_template
from presswork.prompts.render import make_brief, render_prompt
from presswork.prompts.templates import Template
from tests.pieces import Write

FIELDS = """\
output:
  title: {type: str, min_length: 3, max_length: 70, description: The product's name}
  tags: {type: list[str], min_length: 1, max_length: 5, items: {max_length: 20, pattern: "^[a-z]+$"}}
  mood: {choices: [calm, loud], description: How it sounds}
  moods: {type: list[choices], choices: [calm, loud], max_length: 2}
  stars: {type: int, ge: 1, le: 5}
  size: {type: int, choices: [1, 2]}
  share: {type: float, ge: 0, lt: 1.5}
  urgent: {type: bool}
  day: {type: date, ge: 2026-01-01, description: When}
  at: {type: datetime}
  note: {type: str, max_length: 9, optional: true}
  days: {type: list[date], optional: true}
  plain: {}
"""


class Made(Output):
    title: str = Field(min_length=3, max_length=70, description="The product's name")
    tags: list[Annotated[str, Field(max_length=20, pattern="^[a-z]+$")]] = Field(min_length=1, max_length=5)
    mood: Literal["calm", "loud"] = Field(description="How it sounds")
    moods: list[Literal["calm", "loud"]] = Field(max_length=2)
    stars: int = Field(ge=1, le=5)
    size: Literal[1, 2]
    share: float = Field(ge=0, lt=1.5)
    urgent: bool
    day: date = Field(ge=date(2026, 1, 1), description="When")
    at: datetime
    note: str | None = Field(default=None, max_length=9)
    days: list[date] | None = None
    plain: str


ANSWER: dict[str, Any] = {
    "title": "Harbour",
    "tags": ["tea"],
    "mood": "calm",
    "moods": [],
    "stars": 4,
    "size": 2,
    "share": 0.5,
    "urgent": False,
    "day": "2026-03-01",
    "at": "2026-03-01T10:00:00Z",
    "plain": "x",
}


def hash_of(template: Template) -> str:
    return render_prompt(make_brief(template, "sandbox", {}), {"record": {"name": "Tea"}}).hash


def test_fields_make_the_schema_and_so_the_hash_of_the_class_that_a_user_would_write(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.outputs, "Made", Made, raising=False)
    made, named = write(front=FIELDS, name="made"), write(front="output: Made\n", name="named")

    # The order of the fields is equal too, although the hash does not depend on it.
    assert orjson.dumps(made.schema) == orjson.dumps(named.schema)
    assert hash_of(made) == hash_of(named)


def test_documentation_has_each_key_of_a_field_and_an_example_that_works(write: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(output:\n.*?)^```", page, re.DOTALL | re.MULTILINE)

    assert list(write(front=shown, name="made").output_class.model_fields) == ["title", "tags", "mood", "released"]
    assert [key for key in OutputField.model_fields if f"`{key}`" not in page] == []


def test_order_of_the_fields_is_the_schemas(write: Write) -> None:
    made = write(front="output: {zebra: {}, apple: {}, mango: {}}\n", name="made")

    assert list(made.schema["properties"]) == ["zebra", "apple", "mango"]


def test_answer_is_judged_as_by_a_written_class(write: Write) -> None:
    first, second = (write(front=FIELDS, name="made").output_class for _ in range(2))

    content = validate_answer(first, orjson.dumps(ANSWER).decode())
    assert isinstance(content, Content)
    assert content.output == {**ANSWER, "note": None, "days": None}
    # Each process makes the class again, and stored answers stay valid.
    assert isinstance(validate_stored(second, content.output), Content)
    read: Any = second.model_validate_json(orjson.dumps(content.output))
    assert (read.day, read.at) == (date(2026, 3, 1), datetime(2026, 3, 1, 10, tzinfo=UTC))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "T" * 71),
        ("title", "  T  "),
        ("tags", []),
        ("tags", ["T"]),
        ("tags", ["t" * 21]),
        ("mood", "angry"),
        ("moods", ["calm"] * 3),
        ("stars", 6),
        ("size", 3),
        ("share", 1.5),
        ("day", "2025-12-31"),
        ("at", "yesterday"),
        ("note", "n" * 10),
        ("more", 1),
    ],
)
def test_answer_out_of_bounds_is_invalid_by_its_field(write: Write, field: str, value: Any) -> None:
    judged = validate_answer(
        write(front=FIELDS, name="made").output_class, orjson.dumps({**ANSWER, field: value}).decode()
    )

    assert isinstance(judged, Invalid)
    assert {fault.where.partition(".")[0] for fault in judged.faults} == {field}


def test_every_bound_and_description_of_a_field_is_sent(write: Write) -> None:
    sent = orjson.dumps(write(front=FIELDS, name="made").schema).decode()

    for told in (
        "The product's name",
        "maxLength: 70",
        "maxItems: 5",
        "maxLength: 20",
        "^[a-z]+$",
        "minimum: 1",
        "exclusiveMaximum: 1.5",
        "minimum: 2026-01-01",
        "maxLength: 9",
    ):
        assert told in sent


@pytest.mark.parametrize(
    "written",
    ["yes", "no", "NO", "on", "off", "1.10", "0123", "12:30", "2026-03-01", "null", "~", "1_000", "1e3", "0x1F"],
)
def test_choice_is_the_text_as_written(written: str) -> None:
    front = read_front_matter("note", f"---\noutput: {{mood: {{choices: [{written}, other]}}}}\n---\n")
    quoted = read_front_matter("note", f"---\noutput: {{mood: {{choices: ['{written}', other]}}}}\n---\n")

    assert front.output == quoted.output
    assert not isinstance(front.output, str)
    assert front.output.fields["mood"].choices == [written, "other"]


def test_name_of_a_field_is_text_and_the_rest_of_the_front_matter_is_yaml() -> None:
    front = read_front_matter("note", "---\noutput: {on: {type: bool}, no: {}}\nmax_tokens: 16\ncache: off\n---\n")

    assert not isinstance(front.output, str)
    assert list(front.output.fields) == ["on", "no"]
    assert front.max_tokens == 16


@pytest.mark.parametrize(
    "block",
    [
        "output: {tags: {type: list[str], max_length: 5}}",
        "output:\n  tags: {max_length: 5, type: list[str]}",
        "output:\n  tags:\n    type: list[str]\n    max_length: 5",
        'output: {tags: {type: "list[str]", max_length: "5"}}',
        "output: {tags: {type: list[str] , max_length: 5, }}  # a comment",
    ],
)
def test_type_of_a_list_is_read_in_each_style_of_yaml(block: str) -> None:
    front = read_front_matter("note", f"---\n{block}\n---\n")

    assert not isinstance(front.output, str)
    assert front.output.fields["tags"].is_list
    assert front.output.fields["tags"].max_length == 5


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("product_copy", "ProductCopy"),
        ("note", "Note"),
        ("album-notes v2", "AlbumNotesV2"),
        ("FAQ_page", "FAQPage"),
        ("日本_語", "日本語"),
        ("__", "Answer"),
    ],
)
def test_class_is_named_by_the_template(template: str, name: str) -> None:
    assert class_name(template) == name
    assert read_front_matter(template, "---\noutput: {title: {}}\n---\n").output_name == name


def test_front_matter_with_a_class_keeps_its_name() -> None:
    assert read_front_matter("note", "---\noutput: shop.Entry\n---\n").output_name == "shop.Entry"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("{}", "output: has no field. Write at least one"),
        ("[title]", "output: must name an output class, such as ProductCopy or shop.Entry, or define fields"),
        ("{title: str}", "title: must be keys and values, such as {type: str, max_length: 70}"),
        ("{title: {type: text}}", "title: there is no type 'text'. Available: str, int, float, bool, date, datetime"),
        ("{title: {type: 'list[list[str]]'}}", "title: there is no type 'list[list[str]]'"),
        ("{title: {type: dict}}", "title: there is no type 'dict'"),
        ("{title: {type: '__import__(\"os\")'}}", "title: there is no type"),
        ("{title: {max: 5}}", "title: 'max' is not a key here. Available: type, description, choices"),
        ("{title: {description: A title, short}}", "'short' is not a key here. Available: type, description"),
        ("{title: {description: A title, short}}", "le, lt. Put a text with a comma into quotes."),
        ("{title: {default: null}}", "title: 'default' is not a key here"),
        ("{title: {max_length: many}}", "title.max_length: Input should be a valid integer"),
        ("{title: {max_length: 0}}", "title.max_length: "),
        ("{stars: {type: int, max_length: 5}}", "stars: an int takes no `max_length`. Available: ge, gt, le, lt"),
        ("{yes: {type: bool, ge: 1}}", "yes: a bool takes no `ge`. Available: no bounds"),
        ("{mood: {choices: [a], max_length: 1}}", "mood: a choice takes no `max_length`"),
        (
            "{tags: {type: list[str], pattern: a}}",
            "tags: a list takes no `pattern`. Available: min_length, max_length, and `items",
        ),
        ("{tags: {type: list[int], items: {pattern: a}}}", "tags: an int takes no `pattern`"),
        ("{tags: {type: list[str], items: {choices: [a]}}}", "tags.items: 'choices' is not a key here"),
        ("{tags: {type: list[str], items: 5}}", "tags.items: must be keys and values"),
        (
            "{title: {items: {max_length: 5}}}",
            "title: only a list can have `items`, the bounds of its items. Use a type such as",
        ),
        ("{stars: {type: int, ge: five}}", "stars: `ge` takes an int, not 'five'"),
        ("{share: {type: float, le: .inf}}", "share: `le` takes a float, not '.inf'"),
        ("{day: {type: date, ge: 2026-13-45}}", "day: `ge` takes a date, not '2026-13-45'"),
        ("{stars: {type: int, ge: 5, le: 1}}", "stars: no value is between `ge` and `le`"),
        ("{stars: {type: int, gt: 5, lt: 5}}", "stars: no value is between `gt` and `lt`"),
        ("{title: {min_length: 5, max_length: 4}}", "title: no value is between `min_length` and `max_length`"),
        (
            "{at: {type: datetime, ge: 2026-01-01T00:00:00Z, le: 2027-01-01T00:00:00}}",
            "at: `ge` and `le` must both have a time zone, or none",
        ),
        ("{mood: {choices: []}}", "mood.choices: "),
        ("{mood: {choices: [a, {b: c}]}}", "mood.choices.1: "),
        ("{mood: {choices: [a, b, a]}}", "mood: `choices` names the same value twice"),
        ("{mood: {type: choices}}", "mood: the type `choices` needs `choices: [...]`"),
        ("{mood: {type: float, choices: [1.5]}}", "mood: a float takes no `choices`. Use the type choices, str or int"),
        ("{mood: {type: int, choices: [1, x]}}", "mood: `choices` takes an int, not 'x'"),
        ("{title: {pattern: '('}}", "title: the pattern is not a regular expression that pydantic accepts"),
        ("{title: {pattern: '(?=a)'}}", "title: the pattern is not a regular expression that pydantic accepts"),
        ("{title: {optional: perhaps}}", "title.optional: Input should be a valid boolean"),
        ("{copy: {}}", "copy: Python or pydantic reserves this name. Choose another"),
        ("{model_dump: {}}", "model_dump: Python or pydantic reserves this name"),
        ("{class: {}}", "class: Python or pydantic reserves this name"),
        ("{_title: {}}", "_title: a name starts with a letter and has at most"),
        ("{the title: {}}", "the title: a name starts with a letter"),
        ("{a: {type: text}, b: {max: 1}}", "; b: 'max' is not a key here"),
    ],
)
def test_mistake_is_reported_by_its_field_with_the_remedy(fields: str, told: str) -> None:
    with pytest.raises(TemplateError, match=r"^note\.md\.j2: the front matter is wrong: output: ") as raised:
        read_front_matter("note", f"---\noutput: {fields}\n---\n")

    assert told in str(raised.value)


def test_repeated_field_is_reported_with_its_line() -> None:
    with pytest.raises(TemplateError, match=r"^note\.md\.j2, line 4: .*'title' appears twice"):
        read_front_matter("note", "---\noutput:\n  title: {}\n  title: {type: int}\n---\n")


def test_example_is_checked_by_the_fields(write: Write) -> None:
    example = "examples:\n- {record: {name: A}, answer: {stars: 9}}\n"

    with pytest.raises(TemplateError, match=r"the answer of example 1 is not a valid Made: stars: "):
        write(front="output: {stars: {type: int, le: 5}}\n" + example, name="made")


def test_fields_count_for_the_limits_of_the_api(write: Write) -> None:
    many = "\n".join(f"  field_{number}: {{optional: true}}" for number in range(25))
    template = write(front=f"output:\n{many}\n", name="made")

    with pytest.raises(OutputClassError, match="25 optional fields"):
        _ = template.schema


def test_fields_do_not_need_the_users_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> None:
        raise SyntaxError("invalid syntax (outputs.py, line 3)")

    monkeypatch.setattr("importlib.import_module", fail)

    assert write(front=FIELDS, name="made").output_class.__name__ == "Made"


def test_template_with_fields_passes_the_lint(write: Write, folder: Path) -> None:
    write(front="select: SELECT id, name FROM things\nkey: id\n" + FIELDS, name="made")

    assert lint_template(folder, "made") == []


def test_lint_reports_the_line_of_a_class_beyond_the_limits(write: Write, folder: Path) -> None:
    many = "\n".join(f"  field_{number}: {{optional: true}}" for number in range(25))
    body = "{% block user %}x{% endblock %}"
    write(body, front=f"description: Wide\noutput:\n{many}\n", name="made")

    (found,) = lint_template(folder, "made")

    assert (found.level, found.code, found.line) == ("error", "outputclass", 3)
    assert "25 optional fields" in found.message


def test_lint_notes_possible_problems_of_a_schema(write: Write, folder: Path) -> None:
    choices = ", ".join(f"choice_number_{number}" for number in range(400))
    write("{% block user %}x{% endblock %}", front=f"output: {{mood: {{choices: [{choices}]}}}}\n", name="made")

    (found,) = lint_template(folder, "made")

    assert (found.level, found.code, found.line) == ("note", "schema", 2)
    assert "The output class 'Made': The schema is unusually large" in found.message
