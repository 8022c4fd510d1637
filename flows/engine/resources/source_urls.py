"""Sources: which database a template's records come from, and its select made ready to run.

Apart from run.py, so that the command can check a select before Prefect, which takes seconds, is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from db.sources.statements import Parameter, Query
from flows.errors import TemplateError
from flows.settings import Settings, source_url
from flows.steps.prompts.templates import SUFFIX, Template


def query_of(template: Template, params: Mapping[str, Any]) -> Query:
    """Make a template's select ready to run; TemplateError where it has none."""
    if template.select_sql is None:
        raise TemplateError(
            f"{template.name}{SUFFIX}: it has no `select`, so it can't run by itself: it is a step of a flow."
        )
    typed = {
        name: Parameter(param.type, params.get(name, param.default)) for name, param in template.front.params.items()
    }
    return Query(f"{template.name}{SUFFIX}", template.select_sql, template.key_columns, typed)


def url_of_source(settings: Settings, name: str | None, ledger: URL) -> str:
    """Return the URL of a named source; without one it is the ledger's own database, opened for reading only."""
    return source_url(settings, name) or ledger.render_as_string(hide_password=False)


def is_missing_file(url: str) -> bool:
    """Whether a database is a SQLite file that is not there."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return False
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    return file not in (None, "", ":memory:") and not Path(str(file)).is_file()
