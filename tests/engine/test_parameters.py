"""Params belong to their select: its records are rendered with its values, even after many steps."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow

from presswork import RunOptions, Summary, open_run
from presswork.engine.materials.briefs import params_of_step
from presswork.engine.materials.handles import Generations
from presswork.errors import ParameterError
from presswork.prompts.front_matter import FrontMatter
from tests.engine.workshop import Workshop

PARAMS = {"kind": {"default": "any"}, "tone": {"default": None}}


class OfFront:
    """The parts of a template that `params_of_step` uses."""

    name, file = "reply", "reply.md.j2"

    def __init__(self, params: dict[str, Any]) -> None:
        self.front = FrontMatter.model_validate({"output": "SubjectLine", "params": params})


def of(params: dict[str, Any], selected: dict[str, Any]) -> dict[str, Any]:
    template: Any = OfFront(params)
    return params_of_step(template, selected)


@pytest.mark.parametrize(
    ("selected", "rendered"),
    [
        ({}, {"kind": "any", "tone": None}),
        ({"kind": "tea", "other": 1}, {"kind": "tea", "tone": None}),
        ({"kind": None, "tone": "warm"}, {"kind": None, "tone": "warm"}),
    ],
)
def test_step_takes_what_its_template_declares(selected: dict[str, Any], rendered: dict[str, Any]) -> None:
    assert of(PARAMS, selected) == rendered


def test_parameter_that_nobody_gives_is_an_error_and_no_text() -> None:
    with pytest.raises(ParameterError, match=r"'reply' needs the parameter 'tone', .* does not declare it"):
        of({"tone": {}}, {"kind": "tea"})


def test_handles_pass_the_params_of_their_select_on() -> None:
    found = Generations(None, "run", "note", FrontMatter, params={"kind": "tea"})  # type: ignore[arg-type]  # read nowhere

    assert found.where(lambda seen: True).params == {"kind": "tea"}
    assert found.together().params == found.where(lambda seen: True).together().params == {"kind": "tea"}


TEMPLATE = """---
select: SELECT id, name FROM items WHERE name = :kind
params: {{kind: {{type: str, default: none}}}}
key: id
output: SubjectLine
---
{{% block system %}}System of {{{{ params.kind }}}}.{{% endblock %}}
{{% block user %}}{name} of {{{{ params.kind }}}}: {text}{{% endblock %}}
"""


def template(workshop: Workshop, name: str, text: str = "{{ record.name }}") -> None:
    (workshop.templates / f"{name}.md.j2").write_text(TEMPLATE.format(name=name, text=text), encoding="utf-8")


@flow
async def two_kinds(fails: bool = False) -> Summary:
    async with open_run(RunOptions()) as run:
        tea = run.select("first", {"kind": "tea"})
        coffee = run.select("second", {"kind": "coffee"})
        again = run.select("first", {"kind": "cup"})
        firsts = await run.generate("first", tea)
        await run.generate("second", coffee)
        await run.generate("reply", firsts.where(lambda found: 1 / (not fails or found.key != "2")))
        await run.generate("gathered", firsts.together())
        await run.generate("third", again)
        return run.summary()


@pytest.fixture
def kinds(workshop: Workshop) -> Workshop:
    workshop.items({"1": "tea", "2": "tea", "3": "coffee", "4": "cup"})
    for name in ("first", "second", "third"):
        template(workshop, name)
    template(workshop, "reply", "{{ record.name }}{{ first.subject[:0] }}")
    template(workshop, "gathered", "{{ first | length }}")
    workshop.sandbox.configure(keep_bodies=50)
    return workshop


async def test_records_of_two_selects_are_rendered_with_their_own_params(kinds: Workshop) -> None:
    summary = await kinds.call(two_kinds)

    assert summary.exit_status == 0
    sent = {(body["system"][0]["text"], body["messages"][-1]["content"]) for body in kinds.sandbox.bodies()}
    assert sent == {
        ("System of tea.", "first of tea: tea"),
        ("System of coffee.", "second of coffee: coffee"),
        ("System of tea.", "reply of tea: tea"),
        ("System of tea.", "gathered of tea: 2"),
        ("System of cup.", "third of cup: cup"),
    }


async def test_condition_that_fails_on_one_record_is_a_failed_row_of_the_next_step(kinds: Workshop) -> None:
    summary = await kinds.call(two_kinds, fails=True)

    steps = {step.step: (step.succeeded, step.failed) for step in summary.steps}
    assert steps["reply"] == (1, 1)
    assert (steps["gathered"], steps["third"], summary.exit_status) == ((1, 0), (1, 0), 1)
    (row,) = kinds.rows("SELECT * FROM generations WHERE status = 'failed'")
    assert (row["step"], row["record_key"], row["error_kind"], row["prompt_hash"]) == ("reply", "2", "condition", None)
    assert row["error_message"].endswith("fails with ZeroDivisionError.")
    assert row["record_hash"] is not None
    assert kinds.value("SELECT count(*) FROM generation_parents WHERE generation_id = :id", id=row["id"]) == 1
