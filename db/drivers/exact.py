"""Read JSON without losing a digit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

_LONGEST = 4000  # digits of an int, which Python itself bounds a little above


def exact_json(text: str) -> Any:
    """Read JSON with its numbers as they are written: whole ones as int, others as Decimal.

    What is no JSON, or nested too deep to be read, is returned as the text that it is.
    """
    try:
        return json.loads(text, parse_float=Decimal, parse_int=_whole)
    except (ValueError, RecursionError):
        return text


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _LONGEST else Decimal(digits)
