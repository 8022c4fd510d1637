"""Read the columns and the parameters of a template's select from its text, without a database.

The SQL dialect is unknown here, so each likely one is tried. If none can read the text, the database must judge it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from db.sources.clauses import parameters_in, refusal, tokens_of

# Portable dialects first: a statement that they can read has the same columns in the others.
DIALECTS = (None, "sqlite", "postgres", "mysql", "tsql", "oracle", "bigquery", "snowflake", "duckdb")


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a select: `columns` have names, `star` adds unknown ones, the database names the `unnamed`."""

    columns: tuple[str, ...]
    star: bool
    unnamed: int


@dataclass(frozen=True, slots=True)
class NotRead:
    """A select that no dialect can read; `line` counts from 1 in its own text."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class NotASelect:
    """SQL that a run refuses; the reason is a whole sentence, in the run's words."""

    reason: str


@lru_cache(maxsize=256)
def read_select(sql: str) -> Shape | NotRead | NotASelect:
    """Read the columns of a select. SQL is NotASelect only if a run would refuse it in every likely dialect.

    Kept, because a template is read again at each save while its select stays.
    """
    failures: list[NotRead] = []
    refused: list[str | None] = []
    for dialect, statements in _readings(sql, failures):
        refused.append(refusal(sql, dialect))
        if refused[-1] is not None:
            continue
        if not isinstance(statements[0], exp.Query):
            return NotRead(1, f"it is {statements[0].key.upper()} without a SELECT")
        names = [(projection.output_name, projection.is_star) for projection in statements[0].selects]
        named = tuple(name for name, is_star in names if name and not is_star)
        return Shape(named, any(is_star for _name, is_star in names), sum(not name for name, _is_star in names))
    refused = refused or [refusal(sql, dialect) for dialect in DIALECTS]
    return failures[0] if None in refused else NotASelect(str(refused[0]))


def parameters_of(sql: str, declared: Collection[str]) -> dict[str, int]:
    """Return the names of bound parameters (`:name`), each with the line where it first occurs.

    Dialects may read a colon differently, as in SQL Server's `[odd :name]`. The first reading counts in which all
    parameters are declared.
    """
    readings = _parameter_readings(sql)
    return next((found for found in readings if all(name in declared for name in found)), readings[0])


@lru_cache(maxsize=256)
def _parameter_readings(sql: str) -> list[dict[str, int]]:
    return [_parameters(sql, dialect) for dialect, _statements in _readings(sql, [])] or [_parameters(sql, None)]


def _readings(sql: str, failures: list[NotRead]) -> Iterator[tuple[str | None, list[exp.Expr]]]:
    """Yield each dialect that can read a select, with its statements; add the errors of the others to `failures`."""
    for dialect in DIALECTS:
        try:
            parsed = sqlglot.parse(sql, read=dialect)
            # A comment after the last semicolon is not a statement.
            yield dialect, [found for found in parsed if found is not None and not isinstance(found, exp.Semicolon)]
        except SqlglotError as error:
            first = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
            reason = str(first.get("description") or error).splitlines()[0].split(" but got ")[0].rstrip(".")
            near = str(first.get("highlight") or "").strip()
            failures.append(NotRead(int(first.get("line") or 1), f"{reason} near {near!r}" if near else reason))


def _parameters(sql: str, dialect: str | None) -> dict[str, int]:
    try:
        tokens = tokens_of(sql, dialect)
    except ValueError:
        return {}
    found: dict[str, int] = {}
    for parameter in parameters_in(sql, tokens):
        found.setdefault(parameter.name, sql.count("\n", 0, parameter.start) + 1)
    return found
