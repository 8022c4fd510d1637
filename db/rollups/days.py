"""The UTC day of a stored time, as text, in the SQL of each database."""

from typing import Any

from sqlalchemy import Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class utc_day(GenericFunction[str]):  # noqa: N801 - written in statements as SQL's own functions are
    """The UTC day of a time, such as 2026-03-01."""

    type = Text()
    inherit_cache = True


@compiles(utc_day, "sqlite")
def _on_sqlite(element: utc_day, compiler: Any, **options: Any) -> str:
    return f"date({compiler.process(element.clauses, **options)})"


@compiles(utc_day, "postgresql")
def _on_postgres(element: utc_day, compiler: Any, **options: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **options)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
