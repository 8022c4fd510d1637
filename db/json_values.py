"""Read the JSON of a ledger, of which SQLite does not check that it is JSON."""

from typing import Any

import orjson

from db.database_errors import LedgerDamagedError


def json_value(text: str | bytes) -> Any:
    """Read the value of a JSON column; LedgerDamagedError if it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise LedgerDamagedError(
            "A value in the ledger is damaged: it should be JSON, and is not. Keep a copy of the ledger, then restore "
            "the newest backup."
        ) from None
