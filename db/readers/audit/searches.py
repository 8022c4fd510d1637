"""Find generations by the words in their answers, the newest first, within a time limit.

Indexed runs are searched in the index (db/search). Open runs, runs that are not indexed yet, and a ledger without an
index are read, the newest answers first. Each hit is checked in its text, so an index can't give a wrong one. When the
time is over, a search says how far it has come, and can continue from there.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from db.machine import monotonic_s
from db.readers.audit.filters import Filter, FilterError, resolved
from db.readers.audit.generation_lists import GENERATIONS_A_PAGE, GenerationLine, lines_of
from db.readers.audit.ways.candidates import LAST
from db.readers.audit.ways.word_ways import END, SearchStep, ways_to
from db.search.answer_index import AnswerIndex, IndexUnusableError
from db.search.answer_texts import stored_answers, texts_in
from db.search.index_places import opened_index
from db.search.surroundings import Piece, surroundings
from db.search.tokens import QueryError, WordQuery, parse_query, spaced_words

WITHIN_S = 1.0
"""How long a search lasts at most before it shows what it has found; a page has 2 s for all that it reads."""
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class FoundAnswer:
    """A generation whose answer has the words, and the words in their surroundings."""

    line: GenerationLine
    surroundings: list[Piece]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of hits, the newest first; `before` is where the next page begins, None if all was searched.

    `searched_back_to` is set if the time was over before the page was full: older answers were not searched yet. `note`
    says why an index that exists was not used.
    """

    hits: list[FoundAnswer]
    before: str | None
    searched_back_to: datetime | None
    is_indexed: bool
    note: str | None = None


def search(
    engine: Engine,
    wanted: Filter,
    before: str | None = None,
    limit: int = GENERATIONS_A_PAGE,
    within_s: float = WITHIN_S,
) -> SearchPage:
    """Find the newest generations of a filter whose answers have its `words`; `before` is the end of the last page.

    Raises FilterError for words that can't be searched for, and for a template or run that does not exist.
    """
    until = monotonic_s() + within_s
    try:
        query = parse_query(wanted.words or "")
    except QueryError as error:
        raise FilterError(str(error)) from None
    if before is not None and not _ID.fullmatch(before):
        raise FilterError(f"{before!r} is no end of a page. Leave it empty to begin with the newest answers.")
    wanted = resolved(engine, wanted)
    try:
        with opened_index(engine) as index:
            return _page(_Search(engine, query), index, wanted, before, limit, until)
    except IndexUnusableError as error:
        return replace(_page(_Search(engine, query), None, wanted, before, limit, until), note=str(error))


def _page(
    searching: "_Search", index: AnswerIndex | None, wanted: Filter, before: str | None, limit: int, until: float
) -> SearchPage:
    down_to = searching.look(ways_to(searching.engine, index, searching.query, wanted, before), limit + 1, until)
    found = sorted((each for each in searching.found if each >= down_to), reverse=True)
    shown = found[:limit]
    hits = [
        FoundAnswer(line, surroundings(searching.query, searching.found[line.id]))
        for line in lines_of(searching.engine, shown)
    ]
    page = SearchPage(hits, None, None, is_indexed=index is not None)
    if len(found) > limit:
        return replace(page, before=shown[-1])
    return page if down_to == END else replace(page, before=down_to, searched_back_to=_moment_of(down_to))


@dataclass(slots=True)
class _Way:
    steps: Iterator[SearchStep]
    down_to: str = LAST


@dataclass(slots=True)
class _Search:
    """What a search has found: by id, the texts of the generations that have the words."""

    engine: Engine
    query: WordQuery
    found: dict[str, list[str]] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    def look(self, steps: Sequence[Iterator[SearchStep]], enough: int, until: float) -> str:
        """Follow all ways until there are enough hits or the time is over; return down to which id all are found."""
        ways = [_Way(each) for each in steps]
        while True:
            last = max(ways, key=lambda way: way.down_to)
            # Each way gets somewhere first, so that the next page does not begin at the same place.
            is_over = last.down_to != LAST and monotonic_s() > until
            if last.down_to == END or is_over or sum(each >= last.down_to for each in self.found) >= enough:
                return last.down_to
            step = next(last.steps, SearchStep([], END))
            self._check(step.ids)
            last.down_to = step.down_to

    def _check(self, ids: Sequence[str]) -> None:
        """Keep those of the generations whose texts have the words."""
        for each, answer in stored_answers(self.engine, [each for each in ids if each not in self._read]).items():
            if self._may_match(answer):
                texts = texts_in(answer)
                if self.query.matches(spaced_words(texts)):
                    self.found[each] = texts
        self._read.update(ids)

    def _may_match(self, answer: str) -> bool:
        # A quick look at the JSON: only a text in ASCII without escapes has its words as they are compared.
        if not answer.isascii() or "\\u" in answer:
            return True
        lower = answer.lower()
        return all(word in lower for word in self.query.words)


def _moment_of(generation_id: str) -> datetime:
    return datetime.fromtimestamp(int(generation_id.replace("-", "")[:12], 16) / 1000, UTC)
