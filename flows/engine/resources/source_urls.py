"""Sources: which database a template's records come from, and its select made ready to run.

Apart from run.py, so that the command can check a select before Prefect, which takes seconds, is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from db.session import file_of
from db.sources.statements import Parameter, Query
from flows.errors import TemplateError
from flows.settings import Settings, source_url, source_variable
from flows.steps.prompts.templates import SUFFIX, Template

LEDGER_VARIABLE = "PRESSWORK_DATABASE_URL"


def query_of(template: Template, params: Mapping[str, Any]) -> Query:
    """Make a template's select ready to run; TemplateError where it has none."""
    if template.select_sql is None:
        raise TemplateError(
            f"{template.name}{SUFFIX}: it has no `select`, so it can't run by itself: it is a step of a flow."
        )
    typed = {
        name: Parameter(param.type, params.get(name, param.default)) for name, param in template.front.params.items()
    }
    return Query(f"{template.name}{SUFFIX}", template.select_sql, template.front.key_columns, typed)


def source_of(settings: Settings, name: str | None, ledger: URL | str) -> tuple[str, str]:
    """Return the URL of a named source and the variable that it is set in; without one, those of the ledger itself."""
    url = source_url(settings, name)
    if url:
        return url, source_variable(name)
    return ledger if isinstance(ledger, str) else ledger.render_as_string(hide_password=False), LEDGER_VARIABLE


def is_missing_file(url: str) -> bool:
    """Whether a database is a SQLite file that is not there."""
    try:
        file = file_of(make_url(url))
    except ArgumentError:
        return False
    return file is not None and not Path(file).is_file()
