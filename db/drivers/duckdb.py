"""Read DuckDB's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine


def prepare(_engine: Engine) -> Callable[[Any, Any], None]:
    """Return what prepares a connection of duckdb_engine."""

    def prepared(connection: Any, _entry: Any) -> None:
        pass

    return prepared
