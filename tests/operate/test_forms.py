"""Forms: what a template's params become, and what such a form refuses, and what a run takes of it."""

from __future__ import annotations

from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.content import content
from presswork import RunOptions, Selection
from presswork.choices import selecting_templates
from presswork.operate.forms import form_of_template
from presswork.prompts.front_matter import Param
from presswork.settings import ROOT
from tests.engine.workshop import Workshop

PARAMS = {
    "category": Param(type="str", default=None, title="Category", description="Empty: all."),
    "since": Param(type="date"),
    "limit_price": Param(type="float", default=9.5),
    "copies": Param(type="int", default=2, choices=[1, 2, 3]),
    "urgent": Param(type="bool", default=False),
}


def form(params: dict[str, Param] = PARAMS) -> dict[str, Any]:
    return form_of_template(params, parameter_schema(content).model_dump(exclude_unset=True))


def test_form_has_the_params_with_their_types_titles_and_defaults() -> None:
    fields = form()["definitions"]["Params"]["properties"]

    assert fields["category"] == {
        "title": "Category",
        "description": "Empty: all.",
        "position": 0,
        "type": "string",
    }
    assert fields["since"] == {"title": "Since", "position": 1, "type": "string", "format": "date"}
    assert fields["limit_price"] == {"title": "Limit price", "position": 2, "type": "number", "default": 9.5}
    assert fields["copies"]["enum"] == [1, 2, 3]
    assert fields["urgent"]["type"] == "boolean"


def test_form_does_not_ask_which_template() -> None:
    assert list(form()["properties"]) == ["options", "params"]
    assert list(form({})["properties"]) == ["options"]


def test_params_that_must_be_given_are_required() -> None:
    made = form()
    assert made["definitions"]["Params"]["required"] == ["since"]
    assert made["required"] == ["params"]
    assert form({"category": PARAMS["category"]})["required"] == []


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "'params' is a required property"),
        ({"params": {}}, "'since' is a required property"),
        ({"params": {"since": "2026-01-01", "copies": 4}}, "4 is not one of"),
        ({"params": {"since": "2026-01-01", "copies": "two"}}, "'two' is not of type 'integer'"),
        ({"params": {"since": "2026-01-01", "urgent": "very"}}, "'very' is not of type 'boolean'"),
        ({"params": {"since": "2026-01-01", "nonsense": 1}}, "'nonsense' was unexpected"),
        ({"params": {"since": "2026-01-01"}, "options": {"limit": 0}}, "0 is less than the minimum of 1"),
        ({"params": {"since": "2026-01-01"}, "options": {"limit": "many"}}, "options.limit"),
    ],
)
def test_form_filled_in_wrong_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        validate(given, form(), raise_on_error=True)


def test_form_filled_in_right_is_taken() -> None:
    right = {"params": {"since": "2026-01-01", "category": None, "copies": 3}, "options": {"limit": 5, "rpm": None}}
    validate(right, form(), raise_on_error=True)
    validate({"params": {"since": "2026-01-01"}}, form(), raise_on_error=True)


def test_fields_that_may_be_left_out_have_one_type() -> None:
    # Prefect's form shows a field that may be null as a choice of types, and nothing to fill in.
    made = form()
    for definition in made["definitions"].values():
        for field in definition["properties"].values():
            assert "type" in field, field
            assert field.get("default", "") is not None, field
    assert "default" not in made["properties"]["options"]


def test_templates_form_chooses_among_those_that_select(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    field = parameter_schema(content).model_dump(exclude_unset=True)["properties"]["template"]
    assert field["enum"] == sorted(selecting_templates(ROOT / "templates"))
    assert "newsletter_digest" not in field["enum"]

    monkeypatch.setenv("PRESSWORK_TEMPLATES_DIR", str(tmp_path))
    (tmp_path / "broken.md.j2").write_text("no front matter", encoding="utf-8")
    assert "enum" not in parameter_schema(content).model_dump(exclude_unset=True)["properties"]["template"]


class Picked(Selection):
    urgent: bool | None = None
    since: date | None = None
    tone: Literal["warm", "plain"] | None = None


def test_truth_value_that_may_be_null_is_left_null_by_a_form_that_nobody_touches() -> None:
    # Prefect's form sends false for a plain switch; tests/operate/test_browser.py looks at a real one.
    made = form({"urgent": Param(type="bool", default=None)})
    field = made["definitions"]["Params"]["properties"]["urgent"]
    assert (field["anyOf"], field["default"]) == ([{"type": "boolean"}, {"type": "null"}], None)
    assert Picked.model_json_schema()["properties"]["urgent"]["anyOf"] == field["anyOf"]
    for value in (True, False, None):
        validate({"params": {"urgent": value}}, made, raise_on_error=True)


@pytest.mark.parametrize("kind", ["str", "int", "float", "bool", "date", "datetime"])
def test_null_is_taken_where_null_is_the_default(kind: Any) -> None:
    validate({"params": {"value": None}}, form({"value": Param(type=kind, default=None)}), raise_on_error=True)


def test_empty_text_in_a_selection_or_in_the_options_is_null() -> None:
    empty = Picked.model_validate({"urgent": "", "since": "", "tone": ""})
    assert empty == Picked()
    assert RunOptions.model_validate({"limit": "", "resumes": ""}) == RunOptions()
    with pytest.raises(ValueError, match="refresh"):
        RunOptions.model_validate({"refresh": ""})


def test_selection_hands_on_what_it_has_as_a_template_takes_it() -> None:
    class Colour(Enum):
        RED = "red"

    class Coloured(Selection):
        colour: Colour | None = None
        since: date | None = None

    values = Coloured.model_validate({"colour": "red", "since": "2026-11-15"}).values()
    assert Param(type="str").parse("colour", values["colour"]) == "red"
    assert Param(type="date").parse("since", values["since"]) == date(2026, 11, 15)


@pytest.mark.parametrize(
    ("params", "keys"),
    [
        ({"since": "2026-11-15"}, {"new"}),
        ({"since": ""}, {"old", "new"}),
        ({"since": None, "kind": ""}, {"old", "new"}),
        (None, {"old", "new"}),
    ],
)
async def test_date_of_a_form_reaches_the_select_and_an_empty_one_is_null(
    workshop: Workshop, params: dict[str, Any] | None, keys: set[str]
) -> None:
    workshop.items({"old": "2026-01-01", "new": "2026-12-01"})
    (workshop.templates / "dated.md.j2").write_text(DATED, encoding="utf-8")
    await workshop.call(content, "dated", params)
    assert set(workshop.outputs("dated")) == keys


DATED = """---
select: >-
  SELECT id, name FROM items
  WHERE (:since IS NULL OR name >= :since) AND (:kind IS NULL OR name = :kind)
params: {since: {type: date, default: null}, kind: {default: null}}
key: id
output: SubjectLine
---
{% block user %}{{ record.name }}{% endblock %}
"""
