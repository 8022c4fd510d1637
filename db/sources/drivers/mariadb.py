"""Read MariaDB's and MySQL's values: a TIME that is a time of day as one, and a longer or a negative one as its text.

PyMySQL takes each for a length of time. All else, zero dates included, it reads or leaves as text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from db.sources.drivers.texts import read_time

_TIME = 11  # in the protocol


def prepare(_engine: Engine) -> Callable[[Any, Any], None]:
    """Return what prepares a connection of PyMySQL."""

    def prepared(connection: Any, _entry: Any) -> None:
        connection.decoders = {**connection.decoders, _TIME: read_time}

    return prepared
