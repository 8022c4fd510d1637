"""Show what differs between two answers, prompts or records, or between two versions of a template."""

from dataclasses import dataclass
from typing import Literal

from pydantic import model_validator
from sqlalchemy import Engine

from db.readers.audit.compared_generations import (
    ComparedGeneration,
    TemplateSources,
    find_previous,
    find_previous_version,
    read_compared,
    read_template_sources,
)
from db.readers.audit.filters import find_template
from presswork.audit.page import NotFoundError, Page, PageQuery, ShortText, fields_alone
from presswork.differences.json_differences import ValueChange, ValueDifference, compare_values

CHANGES_ON_PAGE = 100
"""Changes on a page; the JSON has all."""


class DifferenceQuery(PageQuery):
    """The two that are compared: ids of generations, or versions of the template `name`.

    Without `a`, `b` is compared with the one before it.
    """

    of: Literal["answer", "prompt", "record", "template"] = "answer"
    a: ShortText | None = None
    b: ShortText | None = None
    name: ShortText | None = None
    look: Literal["text", "columns"] | None = None

    @model_validator(mode="after")
    def _has_the_newer_one(self) -> "DifferenceQuery":
        if self.a is not None and self.b is None:
            raise ValueError("give the newer one, b, too. Without a, b is compared with the one before it")
        return self


@dataclass(frozen=True)
class DifferenceView:
    """Both sides and their difference; `lacking` says why there is none."""

    of: str
    old: ComparedGeneration | TemplateSources | None = None
    new: ComparedGeneration | TemplateSources | None = None
    difference: ValueDifference | None = None
    lacking: str = ""

    @property
    def shown(self) -> tuple[ValueChange, ...]:
        """The changes that a page has room for."""
        return self.difference.changes[:CHANGES_ON_PAGE] if self.difference else ()


def read_difference(engine: Engine, query: DifferenceQuery) -> DifferenceView:
    """Read both sides and compare them."""
    if query.b is None:
        return DifferenceView(query.of, lacking="Enter two ids, or only the newer one.")
    if query.of == "template":
        return _of_templates(engine, query.name, query.a, query.b)
    new = _generation(engine, query.b, query.of)
    before = find_previous(engine, new.id) if query.a is None else query.a
    if before is None:
        return DifferenceView(query.of, new=new, lacking="This is the first content of its record.")
    old = _generation(engine, before, query.of)
    if missing := [each for each in (old, new) if not each.has_value]:
        lacking = f"The generation {missing[0].id} ({missing[0].status}) has no {query.of} to compare."
        return DifferenceView(query.of, old, new, lacking=lacking)
    return DifferenceView(query.of, old, new, compare_values(old.value, new.value))


def _generation(engine: Engine, identifier: str, of: Literal["answer", "prompt", "record"]) -> ComparedGeneration:
    found = read_compared(engine, identifier, of)
    if found is None:
        raise NotFoundError(f"There is no generation, or more than one, whose id starts or ends with {identifier!r}.")
    return found


def _of_templates(engine: Engine, name: str | None, a: str | None, b: str) -> DifferenceView:
    new = _version(engine, b, name)
    before = find_previous_version(engine, new) if a is None else a
    if before is None:
        return DifferenceView("template", new=new, lacking="This is the first version of its template.")
    old = _version(engine, before, name)
    return DifferenceView("template", old, new, compare_values(dict(old.sources), dict(new.sources)))


def _version(engine: Engine, version: str, name: str | None) -> TemplateSources:
    found = read_template_sources(engine, find_template(engine, version, name), name)
    if found is None:
        raise NotFoundError(f"The sources of version {version!r} are not stored: its step was made in code.")
    return found


DIFFERENCE = Page("/difference", DifferenceQuery, read_difference, "difference.html", fields_alone)
