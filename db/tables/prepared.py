"""Make statements once: making them for each run, step and commit would take longer than executing them.

A cached function makes such a statement, by what varies in its text. What else varies is a parameter. SQLAlchemy's
cache keeps no statement with ON CONFLICT, and compiles it at each execution. As text with typed parameters it is cached
like any other.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Insert, Text, TextClause, any_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.interfaces import BindTyping

_POSTGRES: Any = PGDialect
_DIALECTS: dict[str, Any] = {"postgresql": _POSTGRES(paramstyle="named"), "sqlite": SQLiteDialect(paramstyle="named")}
# Types behind parameters are added when the text is executed.
_DIALECTS["postgresql"].bind_typing = BindTyping.NONE


def prepared(statement: Insert, dialect: str, columns: Sequence[str] | None = None) -> TextClause:
    """Return a statement as text with the same parameters, of the same types and with the same values.

    `columns` are those that an INSERT sets from its parameters. The caller keeps the result.
    """
    compiled: Any = statement.compile(
        dialect=_DIALECTS[dialect], column_keys=None if columns is None else list(columns)
    )
    binds = [
        bindparam(name, bound.value, bound.type, required=bound.required) for bound, name in compiled.bind_names.items()
    ]
    return text(str(compiled)).bindparams(*binds)


def among_those(column: Any, parameter: str, dialect: str) -> ColumnElement[bool]:
    """Select rows as db.session.among does, by texts that come with each execution: a parameter, by `one_value`."""
    if dialect == "postgresql":
        matching: ColumnElement[bool] = column == any_(bindparam(parameter, type_=ARRAY(Text())))
        return matching
    listed = func.json_each(bindparam(parameter, type_=Text())).table_valued("value")
    found: ColumnElement[bool] = column.in_(select(listed.c.value))
    return found


def one_value(texts: Sequence[str], dialect: str) -> Any:
    """Return any number of texts as the value of that parameter."""
    # orjson refuses the half characters of a damaged file.
    return list(texts) if dialect == "postgresql" else json.dumps(texts)
