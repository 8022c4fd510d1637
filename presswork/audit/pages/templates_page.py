"""List the templates, and what their generations came to in a period."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from db.readers.audit.template_versions import TemplateLine, list_templates
from presswork.audit.page import Page, PeriodQuery


@dataclass(frozen=True)
class TemplatesView:
    """All templates, those used last first, and then those that were not used in the period."""

    templates: Sequence[TemplateLine]


def read_templates(engine: Engine, query: PeriodQuery) -> TemplatesView:
    """Read all templates; a period counts whole UTC days."""
    found = list_templates(engine, query.since, query.until)
    used = [line for line in found if line.last_used_at is not None]
    unused = [line for line in found if line.last_used_at is None]
    return TemplatesView(sorted(used, key=lambda line: str(line.last_used_at), reverse=True) + unused)


def no_choices(_engine: Engine) -> None:
    """The form has nothing to choose from: it asks for a period alone."""


TEMPLATES_PAGE = Page("/templates", PeriodQuery, read_templates, "templates.html", no_choices)
