"""What came from a record is marked in its prompt, and only if the stored template gives that prompt again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from presswork.prompts.rendering.marking import NO_TEMPLATE, OTHER_TEXT, MarkedPrompt, mark_prompt, read_stored
from presswork.prompts.templates import load_template
from presswork.settings import ROOT

RECORD = {"name": "Cup", "note": None, "tags": ["red", "tall"], "price": 4.5, "sizes": {"s": 1, "m": 2}}
FRONT = "---\noutput: SubjectLine\nparams: {tone: {type: str, default: calm}, most: {type: int, default: 2}}\n---\n"


def marked(
    user: str, sent: str, record: Mapping[str, Any] = RECORD, *, above: str = "", **more: Any
) -> tuple[list[str], MarkedPrompt]:
    """Return the pieces of a prompt, those from data with their source in front, and the whole."""
    files = more.pop("files", {})
    given = more.pop("given", {})
    sources = {"note.md.j2": f"{FRONT}{above}{{% block user %}}{user}{{% endblock %}}", **files}
    found = mark_prompt(read_stored("note", sources), [{"record": record, **more}], given, sent)
    pieces = [piece.text if piece.source is None else f"{piece.source}={piece.text}" for piece in found.pieces]
    assert "".join(piece.text for piece in found.pieces) == sent
    return pieces, found


MARKS = {
    "text around": ("Name: {{ record.name }}.", "Name: Cup.", ["Name: ", "record=Cup", "."]),
    "nothing of a NULL": ("[{{ record.note }}]", "[]", ["[]"]),
    "filter": ("{{ record.name | upper }}!", "CUP!", ["record=CUP", "!"]),
    "constant": ("{{ 'A' }} {{ 1 + 1 }}", "A 2", ["A 2"]),
    "params": ("{{ params.tone }} {{ record.name }}", "calm Cup", ["params=calm", " ", "record=Cup"]),
    "both": ("{{ params.tone ~ record.name }}", "calmCup", ["params=calm", "record=Cup"]),
    "choice": ("{{ record.name if record.note else 'none' }}", "none", ["none"]),
    "loop": (
        "{% for t in record.tags %}- {{ t }}\n{% endfor %}",
        "- red\n- tall",
        ["- ", "record=red", "\n- ", "record=tall"],
    ),
    "loop over nothing of it": ("{% for n in range(2) %}{{ n }}{% endfor %}", "01", ["01"]),
    "loop number": (
        "{% for t in record.tags %}{{ loop.index }}{{ t }}{% endfor %}",
        "1red2tall",
        ["1", "record=red", "2", "record=tall"],
    ),
    "set": ("{% set n = record.name %}{% set m = n %}{{ m }}", "Cup", ["record=Cup"]),
    "set of a constant": ("{% set n = 'Mug' %}{{ n }} {{ record.name }}", "Mug Cup", ["Mug ", "record=Cup"]),
    "set block": ("{% set n %}a {{ record.name }}{% endset %}<{{ n }}>", "<a Cup>", ["<a ", "record=Cup", ">"]),
    "namespace": ("{% set ns = namespace(v='') %}{% set ns.v = record.name %}{{ ns.v }}", "Cup", ["record=Cup"]),
    "with": ("{% with n = record.name, c = 'k' %}{{ n }}{{ c }}{% endwith %}", "Cupk", ["record=Cup", "k"]),
    "macro": (
        "{% macro m(x, y='z') %}({{ x }}{{ y }}){% endmacro %}{{ m(record.name) }}",
        "(Cupz)",
        ["(", "record=Cup", "z)"],
    ),
    "macro by name": (
        "{% macro m(x) %}({{ x }}){% endmacro %}{{ m(x=record.name) }}",
        "(Cup)",
        ["(", "record=Cup", ")"],
    ),
    "macro without data": ("{% macro m(x) %}({{ x }}){% endmacro %}{{ m('a') }}", "(a)", ["(a)"]),
    "macro with varargs": (
        "{% macro m() %}{{ varargs[0] }}!{% endmacro %}{{ m(record.name) }}",
        "Cup!",
        ["record=Cup", "!"],
    ),
    "macro in a filter": (
        "{% macro m(x) %}n {{ x }}{% endmacro %}{{ m(record.name) | upper }}",
        "N CUP",
        ["N ", "record=CUP"],
    ),
    "call block": (
        "{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) m(record.name) %}y {{ y }}{% endcall %}",
        "<y Cup>",
        ["<y ", "record=Cup", ">"],
    ),
    "filter block": ("{% filter upper %}a {{ record.name }}{% endfilter %}", "A CUP", ["A ", "record=CUP"]),
    "white space at the ends": (" \n{{ record.tags | join(', ') }} ", "red, tall", ["record=red, tall"]),
    "number": ("{{ record.price }}", "4.5", ["record=4.5"]),
    "items": (
        "{% for k, v in record.sizes.items() %}{{ k }}={{ v }};{% endfor %}",
        "s=1;m=2;",
        ["record=s", "=", "record=1", ";", "record=m", "=", "record=2", ";"],
    ),
}


@pytest.mark.parametrize("name", MARKS)
def test_marks_what_expressions_on_data_write(name: str) -> None:
    user, sent, expected = MARKS[name]
    pieces, found = marked(user, sent)
    assert pieces == expected
    assert found.why_unmarked is None


def test_earlier_steps_have_marks_of_their_own() -> None:
    user = "{{ triage.topic }} of {{ record.name }}: {% for a in answers %}{{ a }},{% endfor %}"
    pieces, _ = marked(user, "tea of Cup: 1,2,", triage={"topic": "tea"}, answers=[1, 2])
    assert pieces == ["triage=tea", " of ", "record=Cup", ": ", "answers=1", ",", "answers=2", ","]


def test_values_of_the_run_fill_the_params() -> None:
    user = "{{ params.tone }}{{ params.most + 1 }}"
    pieces, _ = marked(user, "dry8", given={"tone": "dry", "most": "7", "other": 1})
    assert pieces == ["params=dry", "params=8"]


def test_includes_and_imports_come_from_the_stored_sources() -> None:
    files = {"_part.md.j2": "of {{ record.name }}", "_macros.md.j2": "{% macro m(x) %}<{{ x }}>{% endmacro %}"}
    above = '{% import "_macros.md.j2" as shapes %}{% from "_macros.md.j2" import m as other %}'
    user = '{{ shapes.m(record.name) }}{{ other(record.price) }} {% include "_part.md.j2" %}'
    pieces, _ = marked(user, "<Cup><4.5> of Cup", above=above, files=files)
    assert pieces == ["<", "record=Cup", "><", "record=4.5", "> of ", "record=Cup"]


DISTURBED = {
    "another text": ("{{ record.name }}", "Mug"),
    "length of what is marked": ("{% set n %}{{ record.name }}{% endset %}{{ n | length }}", "3"),
    "reversed": ("{% filter reverse %}{{ record.name }}{% endfilter %}", "puC"),
    "title": ("{% filter title %}{{ record.name }}{% endfilter %}", "Cup"),
    "missing name": ("{{ record.absent }}", "Cup"),
    "syntax of another release": ("{% unknown %}", "Cup"),
    "access to Python": ("{{ record.__class__ }}", "Cup"),
    "endless text": ("{% for a in range(99999) %}{{ record.name * 99 }}{% endfor %}", "Cup"),
}


@pytest.mark.parametrize("name", DISTURBED)
def test_shows_the_prompt_without_marks_where_they_could_be_wrong(name: str) -> None:
    user, sent = DISTURBED[name]
    pieces, found = marked(user, sent)
    assert pieces == [sent]
    assert found.why_unmarked in (OTHER_TEXT, NO_TEMPLATE)


def test_says_that_the_ledger_lacks_the_template() -> None:
    assert mark_prompt(None, [{"record": RECORD}], {}, "Cup").why_unmarked == NO_TEMPLATE
    assert read_stored("note", {}) is None
    assert read_stored("note", {"note.md.j2": FRONT + '{% include "gone" %}'}) is None


def test_data_is_never_rendered_and_may_hold_the_signs_of_marks() -> None:
    odd = "{{ 7*7 }} \ufdd0\ufdd1 \U000f0000 {% raw %}"
    pieces, found = marked("a {{ record.name }} b", f"a {odd} b", {"name": odd})
    assert pieces == ["a ", f"record={odd}", " b"]
    assert found.why_unmarked is None


def test_tries_each_reading_of_what_a_prompt_was_made_from() -> None:
    stored = read_stored(
        "note", {"note.md.j2": FRONT + "{% block user %}{% for a in one %}{{ a }}{% endfor %}{% endblock %}"}
    )
    found = mark_prompt(stored, [{"one": 1}, {"one": ["x"]}], {}, "x")
    assert [(piece.text, piece.source) for piece in found.pieces] == [("x", "one")]


def test_names_what_a_template_reads() -> None:
    stored = read_stored(
        "note", {"note.md.j2": FRONT + "{% block user %}{{ record.a }}{{ range(2) }}{{ triage }}{% endblock %}"}
    )
    assert stored is not None
    assert stored.reads == {"record", "triage"}


@pytest.mark.parametrize("name", ["product_copy", "support_triage"])
def test_shipped_templates_are_marked(name: str) -> None:
    template = load_template(ROOT / "templates", name)
    record = {variable.column: f"<{variable.column}>" for variable in template.variables("user") if variable.column}
    sent = template.render_block("user", {"record": record, "params": template.stand_ins})
    found = mark_prompt(read_stored(name, template.sources), [{"record": record}], {}, sent)
    assert found.why_unmarked is None
    assert {piece.text for piece in found.pieces if piece.source == "record"} == set(record.values())
