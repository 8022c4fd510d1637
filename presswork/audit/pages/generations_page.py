"""List generations: filtered, the newest first, a page at a time; or found by words in their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import Engine

from db.readers.audit.filter_values import FilterValues, values_of_filters
from db.readers.audit.filters import Filter
from db.readers.audit.generation_lists import GenerationLine, list_generations
from db.readers.audit.searches import search
from db.search.surroundings import Piece
from presswork.audit.page import Page, PeriodQuery, ShortText

GENERATIONS_AT_ONCE = 50
"""Generations on one page."""
SHORT_HASH = 10


class GenerationsQuery(PeriodQuery):
    """The filters of the list, and the id of the last generation of the page before."""

    flow: ShortText | None = None
    step: ShortText | None = None
    endpoint: ShortText | None = None
    template: ShortText | None = None
    model: ShortText | None = None
    status: ShortText | None = None
    cause: ShortText | None = None
    origin: ShortText | None = None
    run: ShortText | None = None
    trigger: ShortText | None = None
    key: ShortText | None = None
    words: ShortText | None = None
    replaced: Literal["yes"] | None = None
    before: Annotated[str, Field(pattern="^[0-9a-f-]{36}$")] | None = None

    @property
    def filter(self) -> Filter:
        """The filter of the readers. Raises FilterError for a word that can't be."""
        return Filter(**self.model_dump(exclude={"before", "replaced"}), replaced=self.replaced is not None or None)


@dataclass(frozen=True)
class ListedGeneration:
    """A line of the list; `surroundings` are the words that were searched for, in the answer's text."""

    line: GenerationLine
    surroundings: Sequence[Piece] = ()


@dataclass(frozen=True)
class FilterChoices:
    """What the form offers. `templates` are hashes of versions, and their names for people."""

    values: FilterValues
    templates: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class GenerationsView:
    """A page of the list. `before` is where the next page begins, None at the end.

    `searched_back_to` is set if a search ran out of time; it goes on at `before`. `note` says why there was no index.
    """

    generations: Sequence[ListedGeneration]
    before: str | None
    searched_back_to: datetime | None = None
    is_indexed: bool | None = None
    note: str | None = None


def read_generations_page(engine: Engine, query: GenerationsQuery) -> GenerationsView:
    """Read a page of the list, or of what a search finds."""
    wanted = query.filter
    if wanted.words is None:
        page = list_generations(engine, wanted, query.before, GENERATIONS_AT_ONCE)
        return GenerationsView([ListedGeneration(line) for line in page.lines], page.before)
    found = search(engine, wanted, query.before, GENERATIONS_AT_ONCE)
    hits = [ListedGeneration(hit.line, hit.surroundings) for hit in found.hits]
    return GenerationsView(hits, found.before, found.searched_back_to, found.is_indexed, found.note)


def read_filter_choices(engine: Engine) -> FilterChoices:
    """Read what the filters of the form can be."""
    found = values_of_filters(engine)
    return FilterChoices(found, [(each.hash, f"{each.name} {each.hash[:SHORT_HASH]}") for each in found.templates])


GENERATIONS = Page("/generations", GenerationsQuery, read_generations_page, "generations.html", read_filter_choices)
