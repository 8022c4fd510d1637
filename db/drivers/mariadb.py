"""Read MariaDB's and MySQL's values: a TIME that is a time of day as one, and a longer or a negative one as its text.

All else that they hold, zero dates included, PyMySQL reads itself or leaves as text.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import time
from typing import Any

from sqlalchemy import Engine

_TIME = 11  # in the protocol


def prepare(_engine: Engine) -> Callable[[Any, Any], None]:
    """Return what prepares a connection of PyMySQL."""

    def prepared(connection: Any, _entry: Any) -> None:
        connection.decoders = {**connection.decoders, _TIME: read_time}

    return prepared


def read_time(text: str) -> time | str:
    """Read a TIME, which is an interval: `09:30:00` is a time of day, `838:59:59` and `-01:00:00` are not."""
    try:
        return time.fromisoformat(text)
    except ValueError:
        return text
