"""A number is written with all of its digits, and without an exponent, whichever way a template writes it."""

from __future__ import annotations

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flows.steps.spelling import Number, as_rendered, spelled

TINY, LARGE = as_rendered([0.00005, 12345678901234560.0])


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


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ x }}", "0.00005"),
        ("{{ x ~ ' g' }}", "0.00005 g"),
        ("{{ [x, y] | join('; ') }}", "0.00005; 12345678901234560"),
        ("{{ '%s and %.2f' | format(x, y) }}", "0.00005 and 12345678901234560.00"),
        ("{{ '{} and {:.3e}'.format(x, x) }}", "0.00005 and 5.000e-05"),
        ("{{ [x] }} {{ {'a': [x]} }}", "[0.00005] {'a': [0.00005]}"),
        ("{{ x | string | upper }}", "0.00005"),
        ("{{ x * 2 }} {{ 2 * x ~ '' }} {{ x / 2 }} {{ x - 1 }}", "0.0001 0.0001 0.000025 -0.99995"),
        ("{{ [x, x] | sum }} {{ x | round(5) }} {{ -x }} {{ x | abs }}", "0.0001 0.00005 -0.00005 0.00005"),
        ("{{ x is number and x is float and x < 1 and x == 0.00005 }}", "True"),
        ("{{ y | int }}", "12345678901234560"),
    ],
)
def test_every_way_to_write_a_number_is_positional(source: str, written: str) -> None:
    template = ImmutableSandboxedEnvironment().from_string(source)

    assert template.render(x=TINY, y=LARGE) == written


def test_plain_values_are_left_as_they_are() -> None:
    record = {"a": 1, "b": "5e-05", "c": None, "d": [True, {"e": 0.00005}]}

    assert as_rendered(record) == record
    assert str(as_rendered(record)) == "{'a': 1, 'b': '5e-05', 'c': None, 'd': [True, {'e': 0.00005}]}"
