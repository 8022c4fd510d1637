"""Spell numbers as people write them: without exponents, with every digit.

This is a module of its own because records and the results of templates follow the same rule. Python writes 0.00005
as `5e-05` and a price of 17 digits as `1.23e+16`; a reader of a prompt, and Claude, should see the digits in the
database.
"""

import math
import re
from decimal import Decimal
from typing import Any

# A JSON text, which stays as it is, or a number that `spelled` changes: with an exponent, or a large one.
_JSON_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?\d[\d.]*e[-+]\d+|-?\d{16,}\.0\b)')
_EXACT = 2**53  # from here every double is whole, and a database writes no `.0`


class Number(float):
    """A float that is always written without an exponent: by `str`, `repr` in a list, `%s`, `format` without a spec.

    A template's arithmetic gives plain floats again, which syntax.py passes to as_rendered.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return spelled(self)

    def __str__(self) -> str:
        return spelled(self)

    def __format__(self, spec: str) -> str:
        return float.__format__(self, spec) if spec else spelled(self)


def spelled(value: float) -> str:
    """Write a number without an exponent, with the fewest digits that read back as the same number."""
    written = float.__repr__(value)
    if not math.isfinite(value) or ("e" not in written and abs(value) < _EXACT):
        return written
    return f"{Decimal(written):f}".removesuffix(".0")


def as_rendered(value: Any) -> Any:
    """Return a template's result with each float, at any depth, as a Number; everything else is the same object."""
    # Only JSON's own types: a mapping of another class may be more than its items.
    kind = type(value)
    if kind is float:
        return Number(value)
    if kind is dict:
        return {name: as_rendered(item) for name, item in value.items()}
    return [as_rendered(item) for item in value] if kind is list else value


def spelled_json(text: str) -> str:
    """Write the numbers of a JSON text from Python's json module without exponents."""
    return _JSON_NUMBER.sub(lambda found: spelled(float(found[1])) if found[1] else found[0], text)
