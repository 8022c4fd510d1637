"""Find generations by the words in their answers, the newest first, within a time limit.

Indexed runs are searched in the index (db/search). Open runs, runs that are not indexed yet, and a ledger without an
index are read, the newest answers first. Each hit is checked in its text, so an index can't give a wrong one. When the
time is over, a search says how far it has come, and can go on from there.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Engine, func, select

from db.readers.audit.filters import Filter, FilterError, conditions_of, id_of, resolved
from db.readers.audit.generation_lists import PAGE, GenerationLine, lines_of, list_generations
from db.search.answer_index import AnswerIndex, IndexUnusableError
from db.search.answer_texts import stored_answers, texts_in
from db.search.index_places import opened_index
from db.search.surroundings import Piece, surroundings
from db.search.tokens import Query, QueryError, parse_query, spaced_words
from db.session import rows_of
from db.tables import Generation

WITHIN_S = 1.0
"""How long a search goes on by itself; a page has 2 s for all that it reads."""
_LEAST, _MOST = 100, 2_000
_RUNS_APART = 50
_ROWS_APART = 20_000
_END = ""
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Hit:
    """A generation whose answer has the words, and the words in their surroundings."""

    line: GenerationLine
    surroundings: list[Piece]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of hits, the newest first; `before` is where the search goes on, None if everything was searched.

    `searched_back_to` is set if the time was over before the page was full: older answers were not searched yet. `note`
    says why an index that exists was not used.
    """

    hits: list[Hit]
    before: str | None
    searched_back_to: datetime | None
    is_indexed: bool
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """Ids in which the words may be, newest first, and down to which id there are no others."""

    ids: list[str]
    down_to: str


@dataclass(slots=True)
class _Way:
    """One way to go through a part of the ledger, the newest first, and how far it has come."""

    steps: Iterator[_Step]
    down_to: str = "~"


@dataclass(slots=True)
class _Search:
    engine: Engine
    query: Query
    wanted: Filter
    before: str | None
    conditions: list[ColumnElement[bool]]
    answers: dict[str, list[str]] = field(default_factory=dict)

    def look(self, ways: Sequence[_Way], enough: int, until: float) -> str:
        """Follow the ways until there are enough hits or the time is over; return down to which id all is found."""
        while True:
            way = max(ways, key=lambda each: each.down_to, default=None)
            if way is None or way.down_to == _END:
                return _END
            if sum(each >= way.down_to for each in self.answers) >= enough or time.monotonic() > until:
                return way.down_to
            step = next(way.steps, _Step([], _END))
            self._check(step.ids)
            way.down_to = step.down_to

    def _check(self, ids: Sequence[str]) -> None:
        """Keep those of the generations whose texts have the words."""
        for each, answer in stored_answers(self.engine, [each for each in ids if each not in self.answers]).items():
            if self._may_match(answer):
                texts = texts_in(answer)
                if self.query.matches(spaced_words(texts)):
                    self.answers[each] = texts

    def _may_match(self, answer: str) -> bool:
        # A quick look at the JSON. Only a text in ASCII without escapes has its words as they are.
        if not answer.isascii() or "\\u" in answer:
            return True
        lower = answer.lower()
        return all(word in lower for word in self.query.words)

    def rows(self, *more: ColumnElement[bool]) -> list[str]:
        """Return the ids of the filter's generations that have texts of their own, newest first."""
        own = select(Generation.id).where(Generation.source_generation_id.is_(None), *self.conditions, *more)
        return [row.id for row in rows_of(self.engine, own.order_by(Generation.id.desc()))]


def search(
    engine: Engine, wanted: Filter, before: str | None = None, limit: int = PAGE, within_s: float = WITHIN_S
) -> SearchPage:
    """Find the newest generations of a filter whose answers have its `words`; `before` is where the last page ended.

    Raises FilterError for words that can't be searched for, and for a template or run that does not exist.
    """
    until = time.monotonic() + within_s
    try:
        query = parse_query(wanted.words or "")
    except QueryError as error:
        raise FilterError(str(error)) from None
    if before is not None and not _ID.fullmatch(before):
        raise FilterError(f"{before!r} is no place in a search. Leave it empty to begin with the newest answers.")
    wanted = resolved(engine, wanted)
    searching = _Search(engine, query, wanted, before, conditions_of(wanted))
    try:
        with opened_index(engine) as index:
            return _page(searching, index, limit, until)
    except IndexUnusableError as error:
        return replace(_page(searching, None, limit, until), note=str(error))


def _page(searching: _Search, index: AnswerIndex | None, limit: int, until: float) -> SearchPage:
    down_to = searching.look(list(_ways(searching, index)), limit + 1, until)
    found = sorted((each for each in searching.answers if each >= down_to), reverse=True)
    shown = found[:limit]
    hits = [
        Hit(line, surroundings(searching.query, searching.answers[line.id]))
        for line in lines_of(searching.engine, shown)
    ]
    if len(found) > limit:
        return SearchPage(hits, shown[-1], None, index is not None)
    if down_to == _END:
        return SearchPage(hits, None, None, index is not None)
    return SearchPage(hits, down_to, _moment_of(down_to), index is not None)


def _ways(searching: _Search, index: AnswerIndex | None) -> Iterator[_Way]:
    if searching.wanted.key is not None:
        # A record has few generations, and the list finds them.
        yield _Way(_listed(searching))
        return
    if index is None:
        yield _Way(_read(searching, [(_END, "~")]))
        return
    unindexed = [run.run_id for run in index.unindexed()]
    if searching.wanted.run is not None:
        unindexed = [run_id for run_id in unindexed if run_id == searching.wanted.run]
    if unindexed != [searching.wanted.run]:
        yield _Way(_indexed(searching, index))
    if len(unindexed) > _RUNS_APART:
        yield _Way(_read(searching, [(_END, "~")]))
    elif unindexed:
        spans = [_span(searching.engine, run_id) for run_id in unindexed]
        yield _Way(_read(searching, _merged(spans), Generation.run_id.in_(unindexed)))


def _indexed(searching: _Search, index: AnswerIndex) -> Iterator[_Step]:
    """Go through the hits of the index."""
    before, size = searching.before, _LEAST
    since, newest = (_END, "~")
    if searching.wanted.run is not None:
        since, newest = _span(searching.engine, searching.wanted.run)
    if searching.wanted.until is not None:
        newest = min(newest, id_of(searching.wanted.until))
    while True:
        ids = index.newest(searching.query, before, since or None, size)
        own = searching.rows(Generation.id.in_(ids)) if searching.conditions else ids
        yield _Step(own, ids[-1] if len(ids) == size else _END)
        if len(ids) < size:
            return
        before, size = ids[-1], min(size * 2, _MOST)
