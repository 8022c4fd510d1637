"""Prepare MariaDB's and MySQL's connections to read only, and read a TIME that is a time of day as one.

PyMySQL takes each TIME for a length of time: a longer or a negative one is its text. All else, zero dates included, it
reads or leaves as text.
"""

from contextlib import closing
from typing import Any

from db.sources.drivers.texts import read_time

WRITE_TIMEOUT_S = 600
"""How long MySQL keeps a result for a reader that is busy with what it has read; its default is one minute."""
_TIME = 11  # in the protocol


def prepare(connection: Any, _known: object) -> None:
    """Prepare a connection of any of its drivers."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute(f"SET SESSION net_write_timeout = {WRITE_TIMEOUT_S}")
    if hasattr(connection, "decoders"):
        connection.decoders = {**connection.decoders, _TIME: read_time}
