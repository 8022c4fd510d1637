"""Spell numbers as people write them: positionally, every digit kept.

It stands alone because both records and what templates compute from them are spelled by the same rule. Python writes
0.00005 as `5e-05` and a price of 17 digits as `1.23e+16`; a reader of a prompt, and Claude, should see the digits that
the database holds.
"""

import math
import re
from decimal import Decimal
from typing import Any

# A text of JSON, which is left as it is, or a number that `spelled` writes otherwise: with an exponent, or a large one.
_JSON_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?\d[\d.]*e[-+]\d+|-?\d{16,}\.0\b)')
_EXACT = 2**53  # from here on every double is whole, and a database writes no `.0`


class Number(float):
    """A float that every way of writing it spells positionally: `str`, `repr` in a list, `%s`, `format` without a spec.

    What a template computes with one is a float again, which syntax.py hands to as_rendered.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return spelled(self)

    def __str__(self) -> str:
        return spelled(self)

    def __format__(self, spec: str) -> str:
        return float.__format__(self, spec) if spec else spelled(self)


def spelled(value: float) -> str:
    """Write a number without an exponent, in the fewest digits that read back as the same one."""
    written = float.__repr__(value)
    if not math.isfinite(value) or ("e" not in written and abs(value) < _EXACT):
        return written
    return f"{Decimal(written):f}".removesuffix(".0")


def as_rendered(value: Any) -> Any:
    """Return what a template has computed with each float, however deep, as a Number; all else is the same object."""
    # By the very types that JSON has: a mapping of somebody's own is more than its items.
    kind = type(value)
    if kind is float:
        return Number(value)
    if kind is dict:
        return {name: as_rendered(item) for name, item in value.items()}
    return [as_rendered(item) for item in value] if kind is list else value


def spelled_json(text: str) -> str:
    """Write the numbers of a JSON text, as Python's json makes it, without exponents."""
    return _JSON_NUMBER.sub(lambda found: spelled(float(found[1])) if found[1] else found[0], text)
