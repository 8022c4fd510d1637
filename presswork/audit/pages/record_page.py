"""Show a record's life: what its content was, from when to when, and why it changed each time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import model_validator
from sqlalchemy import Engine

from db.readers.audit.filters import Filter, FilterError
from db.readers.audit.generation_lists import GenerationLine, lines_of
from db.readers.audit.life_reasons import ExplainedPeriod, explain_periods
from db.readers.audit.ways.matching_ids import ids_of_record
from db.readers.lives import LifePeriod, LifePlace, find_places, read_periods
from db.words import SUCCEEDED, TRY
from presswork.audit.page import AskedKey, NotFoundError, Page, PageQuery, ShortText, fields_alone
from presswork.escaping import quoted

AT_ONCE_PERIODS, AT_ONCE_EACH = 30, 5
"""Periods on a page, and of each place if there are several."""
MOST_PLACES = 12
AT_ONCE_TRIALS = 5
_A_KEY = "the key of a record, as in the column record_key of current_content"


class RecordQuery(PageQuery):
    """The record, and the flow, step and endpoint of its content; without these, all of them.

    `before` is the period before which a page begins, as the id of its generation.
    """

    key: AskedKey | None = None
    flow: ShortText | None = None
    step: ShortText | None = None
    endpoint: ShortText | None = None
    before: ShortText | None = None

    @model_validator(mode="after")
    def _has_a_key(self) -> "RecordQuery":
        if self.key is None and (self.flow or self.step or self.endpoint):
            raise ValueError(f"enter {_A_KEY}")
        return self


@dataclass(frozen=True)
class ShownPeriod:
    """A period, why it began, and how a list shows its generation."""

    explained: ExplainedPeriod
    line: GenerationLine | None


@dataclass(frozen=True)
class RecordLife:
    """A record's life in one place: a part of its periods, the newest first, and counts of all.

    `current` is the content of now, if it has any; `failing` the failure after it. `before` is where the next page
    begins, None if there is none.
    """

    place: LifePlace
    contents: int
    failures: int
    confirmed: int
    current: LifePeriod | None
    failing: LifePeriod | None
    periods: tuple[ShownPeriod, ...]
    before: str | None


@dataclass(frozen=True)
class RecordView:
    """The lives of the records with this key; `more` counts the places that are left out.

    `trials` are the newest of its `trial_count` generations that trials made, the newest first. They are in no life.
    """

    key: str | None
    lives: tuple[RecordLife, ...] = ()
    more: int = 0
    trials: tuple[GenerationLine, ...] = ()
    trial_count: int = 0


def read_record(engine: Engine, query: RecordQuery) -> RecordView:
    """Read the lives of the records with a key."""
    if query.key is None:
        return RecordView(None)
    places = find_places(engine, query.key, flow=query.flow, step=query.step, endpoint=query.endpoint)
    of_trials = Filter(flow=query.flow, step=query.step, endpoint=query.endpoint, trigger=TRY)
    trials = ids_of_record(engine, query.key, of_trials)
    if not places and not trials and not query.key:
        raise FilterError(f"No record has an empty key here. Enter {_A_KEY}.")
    if not places and not trials:
        where = " with this flow, step and endpoint" if query.flow or query.step or query.endpoint else ""
        raise NotFoundError(
            f"No record has the key {quoted(query.key)}{where}. "
            "Enter it as in the column record_key of current_content."
        )
    shown = places[:MOST_PLACES]
    limit = AT_ONCE_PERIODS if len(places) == 1 else AT_ONCE_EACH
    parts = [_part(place, read_periods(engine, place, query.key), query.before, limit) for place in shown]
    # At once for all places: the statements are the same.
    wanted = [period.generation_id for part in parts for period in part.shown]
    explained = explain_periods(engine, [period for part in parts for period in part.periods], set(wanted))
    found = {each.period.generation_id: each for each in explained}
    lines = {line.id: line for line in lines_of(engine, wanted)}
    lives = tuple(_life(part, found, lines) for part in parts)
    tried = lines_of(engine, trials[: -AT_ONCE_TRIALS - 1 : -1])
    return RecordView(query.key, lives, len(places) - len(shown), tuple(tried), len(trials))


@dataclass(frozen=True)
class _Part:
    """All periods of a record in one place, and those that a page shows."""

    place: LifePlace
    periods: Sequence[LifePeriod]
    shown: Sequence[LifePeriod]
    before: str | None


def _part(place: LifePlace, periods: Sequence[LifePeriod], before: str | None, limit: int) -> _Part:
    last = _index_before(periods, before)
    first = max(last - limit, 0)
    return _Part(place, periods, periods[first:last], periods[first].generation_id if first else None)


def _life(part: _Part, explained: Mapping[str, ExplainedPeriod], lines: Mapping[str, GenerationLine]) -> RecordLife:
    contents = [period for period in part.periods if period.status == SUCCEEDED]
    failures = [period for period in part.periods if period.status != SUCCEEDED]
    ids = [period.generation_id for period in reversed(part.shown)]
    return RecordLife(
        place=part.place,
        contents=len(contents),
        failures=len(failures),
        confirmed=sum(period.confirmed for period in part.periods),
        current=contents[-1] if contents else None,
        failing=failures[-1] if failures and failures[-1].until is None else None,
        periods=tuple(ShownPeriod(explained[each], lines.get(each)) for each in ids if each in explained),
        before=part.before,
    )


def _index_before(periods: Sequence[LifePeriod], before: str | None) -> int:
    """Return how many periods are older than the one that begins with this generation; all without one."""
    if before is None:
        return len(periods)
    return next((index for index, each in enumerate(periods) if each.generation_id == before), len(periods))


RECORDS = Page("/records", RecordQuery, read_record, "record.html", fields_alone, blank=frozenset({"key"}))
