"""A number is written with all of its digits, and without an exponent, whichever way a template writes it."""

from __future__ import annotations

import pytest

from presswork.prompts.render import make_brief, render_prompt
from presswork.prompts.spelling import Number, as_rendered, spelled
from tests.pieces import Write


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.00005, "0.00005"),
        (-1.5e-7, "-0.00000015"),
        (12345678901234560.0, "12345678901234560"),
        (9007199254740994.0, "9007199254740994"),
        (1e22, "10000000000000000000000"),
        (5e-324, f"0.{'0' * 323}5"),
        (1e300, f"1{'0' * 300}"),
        (9.5, "9.5"),
        (2.0, "2.0"),
        (0.1 + 0.2, "0.30000000000000004"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_number_is_spelled_positionally(value: float, written: str) -> None:
    assert spelled(value) == str(Number(value)) == written


RECORD = {
    "x": 0.00005,
    "y": 12345678901234560.0,
    "z": 2.0**53 + 2,
    "n": 20000,
    "text": '"5e-05',
    "many": [0.00005, {"a": 1e22}],
}


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ record.x }}", "0.00005"),
        ("{{ record.x ~ ' g' }}", "0.00005 g"),
        ("{{ [record.x, record.y] | join('; ') }}", "0.00005; 12345678901234560"),
        ("{{ '%s and %.2f' | format(record.x, record.y) }}", "0.00005 and 12345678901234560.00"),
        ("{{ '%s' % record.x }}", "0.00005"),
        ("{{ '{} and {:.3e}'.format(record.x, record.x) }}", "0.00005 and 5.000e-05"),
        ("{{ record.many }}", "[0.00005, {'a': 10000000000000000000000}]"),
        ("{{ record.x | string | upper }}", "0.00005"),
        ("{{ record.x is number and record.x is float and record.x < 1 and record.x == 0.00005 }}", "True"),
        ("{{ record.y | int }}", "12345678901234560"),
        ("{{ record.text }}", '"5e-05'),
        # Computed numbers.
        ("{{ record.x * 2 }} {{ 2 * record.x ~ '' }} {{ record.x / 2 }}", "0.0001 0.0001 0.000025"),
        ("{{ 1 / record.n }} {{ 1 / record.n ~ '' }} {{ -record.x ~ '' }}", "0.00005 0.00005 -0.00005"),
        ("{{ [record.x, record.x] | sum ~ '' }} {{ record.x | round(5) }}", "0.0001 0.00005"),
        ("{{ '5e-05' | float ~ '' }} {{ ['5e-05' | float] | join }}", "0.00005 0.00005"),
        ("{{ record.x | abs }} {{ record.many | map('float') | first }}", "0.00005 0.00005"),
        # Numbers in the template's own text.
        (
            "{{ 0.00001 }} {{ record.text and 0.00001 }} {{ 1e22 ~ '' }} {{ -0.00001 }}",
            f"0.00001 0.00001 {10**22} -0.00001",
        ),
        (
            "{% set a = 0.00001 %}{{ a }} {{ [a, 0.00002] }} {{ {'b': 0.00003}.b ~ '' }}",
            "0.00001 [0.00001, 0.00002] 0.00003",
        ),
        ("{% macro m(a=0.00001) %}{{ a }}{% endmacro %}{{ m() }} {{ m(a=0.00002) }}", "0.00001 0.00002"),
        ("{{ record.gone | default(0.00001) }} {{ 0.00001 if true else 2.5 }} {{ 2.50 }}", "0.00001 0.00001 2.5"),
        # JSON.
        ("{{ record.z }} {{ record.z | tojson }} {{ [record.z] | tojson }}", f"{2**53 + 2} {2**53 + 2} [{2**53 + 2}]"),
        ("{{ [record.x, record.text] | tojson }}", '[0.00005, "\\"5e-05"]'),
    ],
)
def test_every_way_to_write_a_number_is_positional(write: Write, source: str, written: str) -> None:
    brief = make_brief(write("{% block user %}" + source + "{% endblock %}"), "sandbox", {})

    assert render_prompt(brief, {"record": RECORD}).messages[-1]["content"] == written


def test_plain_values_are_left_as_they_are() -> None:
    record = {"a": 1, "b": "5e-05", "c": None, "d": [True, {"e": 0.00005}]}

    assert as_rendered(record) == record
    assert str(as_rendered(record)) == "{'a': 1, 'b': '5e-05', 'c': None, 'd': [True, {'e': 0.00005}]}"
