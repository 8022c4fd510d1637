"""Read databases' texts of values without a loss: a text without an exact Python value stays a text."""

import json
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypeVar

T = TypeVar("T")
_LONGEST = 4000  # digits of an int; Python's own limit is slightly higher
# Times that Python would round, or read as the next day's beginning.
_ROUNDED = re.compile(r"\.\d{6}\d*[1-9]|\b24:")


def read_json(text: str) -> Any:
    """Read JSON with exact numbers: whole ones as int, others as Decimal.

    A text that is not JSON, or is nested too deep, is returned unchanged.
    """
    try:
        return json.loads(text, parse_float=Decimal, parse_int=_whole)
    except (ValueError, RecursionError):
        return text


def _or_text(read: Callable[[str], T]) -> Callable[[str], T | str]:
    def read_or_keep(text: str) -> T | str:
        try:
            return text if _ROUNDED.search(text) else read(text)
        except ValueError:
            return text

    return read_or_keep


read_date = _or_text(date.fromisoformat)
"""Read a date. `infinity`, and a year before 1 or after 9999, stays text."""
read_moment = _or_text(datetime.fromisoformat)
"""Read a date and time. One that Python does not have, or with nanoseconds, stays text."""
read_time = _or_text(time.fromisoformat)
"""Read a time of day. A longer or negative one, or one with nanoseconds, stays text."""


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _LONGEST else Decimal(digits)
