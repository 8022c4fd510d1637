"""Read the texts that databases write of a value, losing nothing: what has no Python value stays the text."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

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


def read_date(text: str) -> date | str:
    """Read a date; `infinity`, and a year before 1 or after 9999, is its text."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def read_moment(text: str) -> datetime | str:
    """Read a date and time; one that Python has not, or to the nanosecond, is its text."""
    try:
        return text if _ROUNDED.search(text) else datetime.fromisoformat(text)
    except ValueError:
        return text


def read_time(text: str) -> time | str:
    """Read a time of day; a longer or a negative one, or one to the nanosecond, is its text."""
    try:
        return text if _ROUNDED.search(text) else time.fromisoformat(text)
    except ValueError:
        return text


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _LONGEST else Decimal(digits)
