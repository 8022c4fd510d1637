"""Prepare MariaDB's and MySQL's connections to only read, and to read a TIME as a time of day if it is one.

PyMySQL reads each TIME as a duration. Here a TIME that is not a time of day becomes its text. PyMySQL reads all other
values exactly or leaves them as text, even zero dates.
"""

from contextlib import closing
from typing import Any

from db.sources.drivers.texts import read_time

WRITE_TIMEOUT_S = 600
"""How long MySQL keeps a result for a reader that is busy with earlier rows. MySQL's default is one minute."""
_TIME = 11  # in the protocol


def prepare(connection: Any, _known: object) -> None:
    """Prepare a connection of any driver of MariaDB or MySQL."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute(f"SET SESSION net_write_timeout = {WRITE_TIMEOUT_S}")
    if hasattr(connection, "decoders"):
        connection.decoders = {**connection.decoders, _TIME: read_time}
