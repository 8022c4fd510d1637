"""NULL renders as nothing everywhere, can be distinguished from an empty text, and stays null in JSON."""

from __future__ import annotations

from typing import Any

import pytest

from presswork.errors import RecordError
from presswork.prompts.nulls import paths_of_nulls
from presswork.prompts.render import make_brief, render_prompt
from presswork.prompts.templates import Template
from tests.pieces import Write

RECORD = {
    "x": None,
    "y": "tea",
    "n": 3,
    "rows": [{"name": "b", "price": 2}, {"name": None, "price": None}, {"name": "a", "price": 1}],
    "list": ["a", None, "b"],
    "map": {"k": None, "l": "c"},
}


def fill(write: Write, text: str, front: str = "", record: Any = RECORD, **inputs: Any) -> str:
    """Render a text between two bars in the user block."""
    template = write("{% block user %}|" + text + "|{% endblock %}", front)
    return of(template, record=record, **inputs)


def of(template: Template, **inputs: Any) -> str:
    brief = make_brief(template, "sandbox", template.stand_ins)
    content = render_prompt(brief, inputs).messages[-1]["content"]
    return content.removeprefix("|").removesuffix("|")


@pytest.mark.parametrize(
    "text",
    [
        "{{ record.x }}",
        "{{ record['x'] }}",
        "{{ none }}",
        "{{ None ~ record.x }}",
        "{{ record.x ~ '' }}",
        "{{ record.x + '' }}{{ '' + record.x }}{{ record.x + record.x }}",
        "{{ '' + none }}",
        "{{ [record.x, none] | join }}",
        "{{ [''] | join(record.x) }}",
        "{{ ''.join([record.x]) }}",
        "{{ '%s' | format(record.x) }}{{ '%s' | format(none) }}",
        "{{ '%.2f' | format(record.x) }}{{ '%+d%x%c' | format(record.x, record.x, record.x) }}",
        "{{ '%(a)s%(b).1f' | format(a=record.x, b=record.x) }}{{ '%.*f' | format(2, record.x) }}",
        "{{ '%s' % record.x }}{{ '%.2f' % record.x }}{{ '%s%.1f' % (record.x, none) }}",
        "{{ '%(x)s%(x).2f' % record }}",
        "{{ '{}{:.2f}{:<}{x:,}'.format(record.x, none, record.x, x=record.x) }}",
        "{{ record.x | upper }}{{ record.x | lower }}{{ record.x | title }}{{ record.x | capitalize }}",
        "{{ record.x | trim }}{{ record.x | string }}{{ record.x | replace('a', 'b') }}{{ record.x | indent(2) }}",
        "{{ record.x | truncate(9) }}{{ record.x | wordwrap(9) }}{{ record.x | striptags }}{{ record.x | e }}",
        "{{ record.x | round(2) }}{{ record.x | abs }}{{ record.x | filesizeformat }}",
        "{{ record.x | default(none) }}{{ record.x | d }}",
        "{{ record.x.strip() }}{{ record.x.upper() }}{{ record.x[:4] }}{{ record.x[0:4] | upper }}",
        "{{ record.x | urlencode }}{{ record.x | reverse }}{{ record.x | safe }}",
        "{{ record.get('x') }}{{ record.get('nothing') }}{{ record.x.get('y') }}",
        "{{ record.map.k }}{{ record.list[1] }}{{ triage.note }}{{ params.p }}",
        "{{ record.x if true }}{{ record.x or none }}{{ record.x and 1 }}",
        "{% for row in record.rows if row.price is none %}{{ row.name }}{% endfor %}",
        "{% for row in record.x %}{{ row }}{% endfor %}{% for a, b in record.x.items() %}x{% endfor %}",
        "{% for a, b in record.x | items %}x{% endfor %}{% for a, b in record.x | dictsort %}x{% endfor %}",
        "{% macro m(a, b=none) %}{{ a }}{{ b }}{{ a ~ b }}{% endmacro %}{{ m(record.x) }}{{ m(a=none) }}",
        "{% macro m() %}{{ caller(none) }}{% endmacro %}{% call(a) m() %}{{ a }}{{ a ~ '' }}{% endcall %}",
        "{% set y = record.x %}{{ y }}{{ y ~ '' }}{% set z = none %}{{ z ~ '' }}",
        "{% set ns = namespace(v=none) %}{{ ns.v ~ '' }}{% set ns.v = record.x %}{{ ns.v }}{{ dict(a=none).a }}",
        "{% set y %}{{ record.x }}{% endset %}{{ y }}{% filter upper %}{{ record.x }}{% endfilter %}",
        "{{ record.list | select('none') | join }}{{ record.x | list | join }}{{ record.x | sort | join }}",
    ],
)
def test_null_renders_as_nothing(write: Write, text: str) -> None:
    front = "params: {p: {default: null}}\n"

    assert fill(write, text, front, triage={"note": None}) == ""


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ 'a' ~ record.x ~ 'b' }}", "ab"),
        ("{{ record.list | join(', ') }}", "a, , b"),
        ("{{ ', '.join(record.list) }}", "a, , b"),
        ("{{ record.list | map('upper') | join('-') }}", "A--B"),
        ("{{ record.rows | map(attribute='name') | join('-') }}", "b--a"),
        ("{{ record.rows | map(attribute='gone', default=none) | join('-') }}", "--"),
        ("{{ '%s of %5.1f' | format(record.y, record.x) }}", "tea of      "),
        ("{{ '%d %% of %s' | format(record.n, record.x) }}", "3 % of "),
        ("{{ '%s' % record.y }} {{ 7 % record.n }} {{ '%d%s' % (record.n, record.x) }}", "tea 1 3"),
        ("{{ '{:>3}|'.format(record.x) }}", "   |"),
        ("{{ record.y | replace('t', record.x) }}", "ea"),
        ("{{ record.x | length }} {{ record.x | count }} {{ record.x | wordcount }}", "0 0 0"),
        ("{{ record.x | int }} {{ record.x | int(7) }} {{ record.x | float }}", "0 7 0.0"),
        ("{{ record.x | center(3) }}|", "   |"),
        ("{{ record.list }} {{ record.map | string }}", "['a', '', 'b'] {'k': '', 'l': 'c'}"),
        ("{{ record.map | pprint }}", "{'k': '', 'l': 'c'}"),
        ("{{ record.map | xmlattr }}", ' l="c"'),
        ("{{ record.list | sort | join('-') }}", "-a-b"),
        ("{{ record.list | sort(reverse=true) | join('-') }}", "b-a-"),
        ("{{ record.rows | sort(attribute='price') | map(attribute='name') | join('-') }}", "-a-b"),
        ("{{ record.rows | sort(attribute='price,name') | map(attribute='price') | join('-') }}", "-1-2"),
        ("{% for k, v in record.map | dictsort(by='value') %}{{ k }}{{ v }} {% endfor %}", "k lc "),
        ("{% for k, v in {'b': 1, 'A': none} | dictsort(true, 'key', true) %}{{ k }}{{ v }}{% endfor %}", "b1A"),
        ("{% for g, rows in record.rows | groupby('name') %}{{ g }}{{ rows | length }} {% endfor %}", "1 a1 b1 "),
        ("{% for g in record.rows | groupby('price') %}{{ g.grouper }}:{{ g.list | length }}{% endfor %}", ":11:12:1"),
        ("{{ record.list | unique | join('-') }} {{ record.list | first }} {{ record.list | last }}", "a--b a b"),
        ("{{ [1, 2, 3] | batch(2, record.x) | list }}", "[[1, 2], [3]]"),
        ("{{ ' a ' | trim(none) }}{{ 'aa' | replace('a', 'b', record.x) }}", "abb"),
        ("{{ 'a b'.split(none) | join('-') }}{{ record.get('gone', none) ~ '' }}", "a-b"),
        ("{{ 'abc'[:record.x] }} {{ 'abc'[record.x:2] }} {{ 'abc'[none:1] }} {{ 'abc'[1:] }}", "abc ab a bc"),
        ("{{ params.day.year }}{{ params.day.nothing is defined }}", "2000False"),
    ],
)  # fmt: skip
def test_null_is_nothing_inside_other_text(write: Write, text: str, made: str) -> None:
    assert fill(write, text, "params: {day: {type: date}}\n") == made


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("record.x is none", True),
        ("record.x is not none", False),
        ("record.y is none", False),
        ("record.x == none", True),
        ("none == record.x", True),
        ("record.x != none", False),
        ("record.x is sameas none", True),
        ("record.x is eq none", True),
        ("record.x in [1, none]", True),
        ("record.x in [1, record.map.k]", True),
        ("none in record.list", True),
        ("record.x in record.list", True),
        ("record.x == ''", False),
        ("record.x == 0", False),
        ("record.x == false", False),
        ("record.x", False),
        ("not record.x", True),
        ("record.x is defined", True),
        ("record.gone is defined", False),
        ("record.x.city is defined", False),
        ("record.x is string", False),
        ("record.x is iterable", False),
        ("record.x is mapping", False),
        ("record.x is number", False),
        ("record.x is boolean", False),
        ("record.map.k is none", True),
        ("none is none", True),
        ("record.rows | selectattr('price', 'none') | list | length == 1", True),
        ("record.rows | selectattr('price') | list | length == 2", True),
        ("record.rows | rejectattr('price', 'equalto', none) | list | length == 2", True),
        ("record.x.startswith('a')", False),
        ("(record.x | default(none)) is none", True),
    ],
)
def test_null_can_be_tested_for(write: Write, condition: str, holds: bool) -> None:
    assert fill(write, "{% if " + condition + " %}yes{% else %}no{% endif %}") == ("yes" if holds else "no")


@pytest.mark.parametrize(
    "text",
    [
        "{{ record.x | default('-') }}",
        "{{ record.x | d('-') }}",
        "{{ record.x | default(default_value='-') }}",
        "{{ record.gone | default('-') }}",
        "{{ record.x.city | default('-') }}",
        "{{ record.map.k | default('-', true) }}",
        "{{ [record.x] | map('default', '-') | first }}",
        "{{ record.x or '-' }}",
        "{{ (record.x | trim) or '-' }}",
        "{{ params.p | default('-') }}",
    ],
)
def test_default_replaces_null(write: Write, text: str) -> None:
    assert fill(write, text, "params: {p: {default: null}}\n") == "-"


@pytest.mark.parametrize("text", ["{{ record.y | default('-') }}", "{{ record.n | d }}", "{{ false | default(1) }}"])
def test_default_keeps_other_values(write: Write, text: str) -> None:
    assert fill(write, text) in {"tea", "3", "False"}


@pytest.mark.parametrize(
    "text",
    [
        "{{ record.x * 2 }}",
        "{{ 2 * record.x }}",
        "{{ record.x * 1.5 }}",
        "{{ 1 + record.x }}",
        "{{ record.x - 1 }}",
        "{{ 3 / record.x }}",
        "{{ record.x % 2 }}",
        "{{ 7 % record.x }}",
        "{{ -record.x }}",
        "{{ record.x < 5 }}",
        "{{ 5 >= record.x }}",
        "{{ record.x < 'b' }}",
        "{{ [1, record.x] | sum }}",
    ],
)
def test_computing_with_null_fails_the_record_with_the_reason(write: Write, text: str) -> None:
    with pytest.raises(
        RecordError, match=r"^note\.md\.j2, line 4: it computes with a value that is NULL, or compares it"
    ):
        fill(write, text)


def test_reading_a_name_of_null_fails_the_record_with_the_reason(write: Write) -> None:
    with pytest.raises(RecordError, match="it reads 'city' of a value that is NULL"):
        fill(write, "{{ record.x.city }}")
    with pytest.raises(RecordError, match="it reads 'city' of a value that is NULL"):
        fill(write, "{{ record.x['city'] }}")


@pytest.mark.parametrize("text", ["{{ record.gone | tojson }}", "{{ {'a': [record.gone]} | tojson }}"])
def test_missing_value_in_json_is_named(write: Write, text: str) -> None:
    with pytest.raises(RecordError, match="has no attribute 'gone'"):
        fill(write, text)


def test_missing_value_is_still_an_error(write: Write) -> None:
    for text in ("{{ record.gone }}", "{{ record.gone | upper }}", "{{ record.x ~ record.gone }}"):
        with pytest.raises(RecordError):
            fill(write, text)


@pytest.mark.parametrize(
    ("text", "json"),
    [
        ("{{ record.x | tojson }}", "null"),
        ("{{ none | tojson }}", "null"),
        ("{{ record.list | tojson }}", '["a", null, "b"]'),
        ("{{ {'b': 1, 'a': record.map} | tojson }}", '{"a": {"k": null, "l": "c"}, "b": 1}'),
        ("{{ params | tojson }}", '{"p": null}'),
        ("{{ [1] | tojson(indent=record.x) }}", "[1]"),
    ],
)
def test_null_stays_null_in_json(write: Write, text: str, json: str) -> None:
    assert fill(write, text, "params: {p: {default: null}}\n") == json


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ("Salt & <Pepper>", '"Salt & <Pepper>"'),
        ("it's 日本 é \U0001f375", '"it\'s 日本 é \U0001f375"'),
        ('a "quote" \\ and\na line', '"a \\"quote\\" \\\\ and\\na line"'),
        ({"b": 1, "a": [True, 1.5]}, '{"a": [true, 1.5], "b": 1}'),
    ],
)
def test_json_keeps_characters_as_they_are(write: Write, value: Any, json: str) -> None:
    assert fill(write, "{{ record.v | tojson }}", record={"v": value}) == json


@pytest.mark.parametrize(("kind", "given"), [("date", "2026-03-01"), ("datetime", "2026-03-01T12:30:00+01:00")])
def test_json_writes_a_date_of_the_params_as_it_is_printed(write: Write, kind: str, given: str) -> None:
    front = f"params: {{since: {{type: {kind}, default: {given!r}}}}}\n"

    printed, as_json = fill(write, "{{ params.since }}|{{ params | tojson }}", front).split("|")

    assert as_json == f'{{"since": "{printed}"}}'


def test_json_may_be_indented_and_is_plain_text_afterwards(write: Write) -> None:
    text = "{{ record.v | tojson(indent=2) }}{{ (record.v | tojson) + ' <b>' }}"

    assert fill(write, text, record={"v": {"a": [1]}}) == '{\n  "a": [\n    1\n  ]\n}{"a": [1]} <b>'


def test_null_is_nothing_in_the_system_block_and_in_parts(write: Write) -> None:
    template = write(
        '{% from "_m.md.j2" import m %}{% set y = params.p %}{% block system %}a{{ params.p }}{{ y }}b{% endblock %}'
        '{% block user %}{{ m(record.x) }}{% include "_part.md.j2" %}{% endblock %}',
        "params: {p: {default: null}}\n",
        {"_m.md.j2": "{% macro m(a) %}<{{ a }}{{ a ~ '' }}>{% endmacro %}", "_part.md.j2": "({{ record.x ~ '' }})"},
    )

    assert make_brief(template, "sandbox", {"p": None}).system == "ab"
    assert of(template, record=RECORD) == "<>()"


def test_data_is_not_changed_by_rendering(write: Write) -> None:
    record = {"x": None, "list": [None]}

    fill(write, "{{ record.x }}{{ record.list }}", record=record)

    assert record == {"x": None, "list": [None]}
    assert record["x"] is None


def test_places_of_nulls_are_named() -> None:
    found = paths_of_nulls({"a": None, "b": 1, "c d": {"e": [None, {"f": None}]}}, "record")

    assert list(found) == ["record.a", "record['c d'].e[0]", "record['c d'].e[1].f"]
