"""Wrapping: a select asked for its columns, for some of its rows or for a part of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, TextClause, bindparam

from db.statements import Parameter, as_it_stands

_VALUE = "presswork_value_"


def no_rows(sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> TextClause:
    """Ask for the columns alone."""
    return as_it_stands(f"{_selected(sql, parameters, dialect)} WHERE 1 = 0", parameters, dialect)


def rows_where(
    sql: str, parameters: Mapping[str, Parameter], dialect: Dialect, columns: Sequence[str], values: Sequence[Any]
) -> TextClause:
    """Ask for the rows whose columns have these values."""
    named = {f"{_VALUE}{number}": value for number, value in enumerate(values)}
    same = " AND ".join(f"{_quoted(dialect, column)} = :{name}" for column, name in zip(columns, named, strict=True))
    typed = dict(parameters) | {name: Parameter("any", value) for name, value in named.items()}
    clause = as_it_stands(f"{_selected(sql, parameters, dialect)} WHERE {same}", typed, dialect)
    # Untyped: the driver knows best how a value that it has returned is compared with its column.
    return clause.bindparams(*(bindparam(name, value) for name, value in named.items()))


def rows_between(
    sql: str,
    parameters: Mapping[str, Parameter],
    dialect: Dialect,
    order_by: Sequence[str],
    offset: int,
    count: int,
    limit: int | None,
) -> TextClause:
    """Ask for `count` rows from `offset` on, in the order of these columns; of the first `limit` where there is one."""
    # ruff: noqa: S608 - values are bound
    whole = _selected(sql, parameters, dialect)
    if limit is not None:
        whole = f"SELECT * FROM (\n{whole} LIMIT {limit}\n) AS chosen"
    order = ", ".join(_quoted(dialect, column) for column in order_by)
    return as_it_stands(f"{whole} ORDER BY {order} LIMIT {count} OFFSET {offset}", parameters, dialect)


def _selected(sql: str, parameters: Mapping[str, Parameter], dialect: Dialect) -> str:
    body = as_it_stands(sql, parameters, dialect).text.replace("\\:", ":")
    return f"SELECT * FROM (\n{body}\n) AS selected"


def _quoted(dialect: Dialect, name: str) -> str:
    return dialect.identifier_preparer.quote(name).replace("%%", "%")
