"""Read the texts that databases write of a value, losing nothing: what has no Python value stays the text."""

import json
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypeVar

T = TypeVar("T")
_LONGEST = 4000  # digits of an int, which Python itself bounds a little above
# What Python would round off, or take for the next day's beginning.
_ROUNDED = re.compile(r"\.\d{6}\d*[1-9]|\b24:")


def read_json(text: str) -> Any:
    """Read JSON with its numbers as they are written: whole ones as int, others as Decimal.

    What is no JSON, or nested too deep to be read, is returned as the text that it is.
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
"""Read a date; `infinity`, and a year before 1 or after 9999, is its text."""
read_moment = _or_text(datetime.fromisoformat)
"""Read a date and time; one that Python has not, or to the nanosecond, is its text."""
read_time = _or_text(time.fromisoformat)
"""Read a time of day; a longer or a negative one, or one to the nanosecond, is its text."""


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _LONGEST else Decimal(digits)
