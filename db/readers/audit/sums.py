"""Add up usage, outcomes and use of the prompt cache over any period, grouped by whatever is asked for.

Rollups of closed runs and live sums of the others are added in one statement, so a figure is the same while a run is
open and after it has closed. Rollups are kept by day: a period counts as the whole UTC days that it touches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Engine,
    Integer,
    Select,
    Subquery,
    Text,
    cast,
    literal_column,
    null,
    select,
    union_all,
)

from db.readers.audit.filters import Filter, FilterError, status_is
from db.readers.figures import CACHE_SUMS, PRICED_BY, PromptCacheUse, TotalUsage, cache_use_of
from db.readers.run_figures import usage_in
from db.rollups.attempt_sums import total
from db.rollups.counted import counted, counted_outcomes
from db.session import rows_of
from db.tables import PromptCacheRollup, StoredRun, UsageRollup
from db.words import CACHE, SUCCEEDED

_WHOLE_HASH = 64
_OF_RUNS = ("flow", "endpoint", "trigger")
_NAMES = {"run": "run_id", "template": "template_hash", "tier": "service_tier", "error": "error_type"}
"""The columns of rollups that have another name than their dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """What the rows of a sum have in common: None if they are not grouped by it, '' if there is no value.

    `day` is a UTC day, such as 2026-03-01; `trigger` is what started the run, `template` a version's hash; `tier` and
    `error` are of attempts.
    """

    day: str | None = None
    flow: str | None = None
    endpoint: str | None = None
    trigger: str | None = None
    run: str | None = None
    step: str | None = None
    template: str | None = None
    model: str | None = None
    tier: str | None = None
    kind: str | None = None
    error: str | None = None
    status: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The usage and cost of attempts that are alike. `attempts` include those that were never sent.

    The model is the one that answered, '' without an answer.
    """

    alike: Alike
    usage: TotalUsage
    attempts: int


@dataclass(frozen=True, slots=True)
class OutcomeSum:
    """The number of outcomes that are alike. The model is the requested one, '' if nothing was rendered.

    `generations` count in their run, `replaced` are earlier outcomes of the same record and run. `unchanged` records
    have no generation: they were confirmed as they were, content and failures alike.
    """

    alike: Alike
    generations: int
    replaced: int
    unchanged: int

    @property
    def has_content(self) -> bool:
        """Whether these have content; only if they are grouped by status."""
        return self.alike.status == SUCCEEDED

    @property
    def is_reused(self) -> bool:
        """Whether their answers come from the ledger; only if they are grouped by origin."""
        return self.alike.origin == CACHE


@dataclass(frozen=True, slots=True)
class CacheUseSum:
    """The use of the prompt cache by requests that are alike and have the same prices; days are those of their end."""

    alike: Alike
    use: PromptCacheUse


DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "usage": ("day", *_OF_RUNS, "run", "step", "template", "model", "tier", "kind", "error"),
    "outcomes": ("day", *_OF_RUNS, "run", "step", "template", "model", "status", "origin"),
    "prompt cache": ("day", *_OF_RUNS, "run", "step", "template", "model", "tier"),
}
"""What each kind of sum can be grouped by and filtered by."""


def sums_by(engine: Engine, by: Sequence[str], chosen: Filter | None = None) -> list[UsageSum]:
    """Add up usage and cost, grouped by DIMENSIONS["usage"], in their order; one sum if `by` is empty.

    Raises FilterError if the filter has a value by which figures are not kept.
    """
    return sums_by_each(engine, [by], chosen)[0]


def sums_by_each(
    engine: Engine, groupings: Sequence[Sequence[str]], chosen: Filter | None = None
) -> list[list[UsageSum]]:
    """Return `sums_by` for several groupings, in one statement: open runs are added up once, and all sums agree."""
    wanted = chosen or Filter()
    added = counted(UsageRollup, **chosen_runs("usage", wanted))
    names = [column.name for column in UsageRollup.__table__.c if not column.primary_key]
    found = _read(engine, "usage", added, groupings, wanted, names)
    return [[_usage_sum(alike, row) for alike, row in group] for group in found]


def outcomes_by(engine: Engine, by: Sequence[str], chosen: Filter | None = None) -> list[OutcomeSum]:
    """Count outcomes, grouped by DIMENSIONS["outcomes"]. Unchanged records count on the day on which their run began.

    No template and no model is known of unchanged records. Raises FilterError as `sums_by` does.
    """
    return outcomes_by_each(engine, [by], chosen)[0]


def outcomes_by_each(
    engine: Engine, groupings: Sequence[Sequence[str]], chosen: Filter | None = None
) -> list[list[OutcomeSum]]:
    """Return `outcomes_by` for several groupings, in one statement."""
    wanted = chosen or Filter()
    with_models = wanted.model is not None or any("model" in by for by in groupings)
    added = counted_outcomes(with_models=with_models, **chosen_runs("outcomes", wanted))
    found = _read(engine, "outcomes", added, groupings, wanted, ("generations", "replaced", "unchanged"))
    return [
        [OutcomeSum(alike, int(row.generations), int(row.replaced), int(row.unchanged)) for alike, row in group]
        for group in found
    ]


def cache_use_by(engine: Engine, by: Sequence[str], chosen: Filter | None = None) -> list[CacheUseSum]:
    """Add up the use of the prompt cache, grouped by DIMENSIONS["prompt cache"] and by what sets the price.

    Raises FilterError as `sums_by` does.
    """
    wanted = chosen or Filter()
    added = counted(PromptCacheRollup, **chosen_runs("prompt cache", wanted))
    (found,) = _read(engine, "prompt cache", added, [by], wanted, CACHE_SUMS, PRICED_BY)
    return [CacheUseSum(alike, cache_use_of(row)) for alike, row in found]


def values_of(by: Sequence[str]) -> Callable[[Alike], object]:
    """Return a function that returns the values of these dimensions, to compare and to sort by."""
    return attrgetter(*by) if by else lambda _alike: ()


def whole_days(since: datetime | None, until: datetime | None) -> tuple[str | None, str | None]:
    """Return the UTC days of a period: the first one, and the one after the last."""
    first = None if since is None else since.astimezone(UTC).date().isoformat()
    if until is None:
        return first, None
    return first, (until.astimezone(UTC) - timedelta(microseconds=1) + timedelta(days=1)).date().isoformat()


def conditions_on(added: Any, chosen: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter on rows of a rollup; those on runs are not among them."""
    first, after = whole_days(chosen.since, chosen.until)
    found = [
        added.c[name] == value
        for name, value in (
            ("step", chosen.step),
            ("model", chosen.model),
            ("origin", chosen.origin),
        )
        if value is not None
    ]
    if chosen.status is not None:
        found.append(status_is(added.c.status, chosen.status))
    if chosen.template is not None:
        same = added.c.template_hash.startswith(chosen.template, autoescape=True)
        found.append(added.c.template_hash == chosen.template if len(chosen.template) == _WHOLE_HASH else same)
    found += [added.c.day >= first] if first else []
    return found + ([added.c.day < after] if after else [])


def chosen_runs(kind: str, chosen: Filter) -> dict[str, str | None]:
    """Return the conditions of a filter on columns of runs, by name; raises FilterError as `sums_by` does."""
    kept = {*DIMENSIONS[kind], "since", "until"}
    for each in fields(chosen):
        if getattr(chosen, each.name) is not None and each.name not in kept:
            raise FilterError(f"Figures of {kind} are not kept by {each.name}. Available: {', '.join(sorted(kept))}.")
    return {"flow": chosen.flow, "endpoint": chosen.endpoint, "trigger": chosen.trigger, "id": chosen.run}


def _read(
    engine: Engine,
    kind: str,
    added: Subquery,
    groupings: Sequence[Sequence[str]],
    chosen: Filter,
    sums: Sequence[str],
    always_by: Sequence[str] = (),
) -> list[list[tuple[Alike, Any]]]:
    """Add the chosen rows up for each grouping; all are also grouped by the columns `always_by`."""
    for name in (name for by in groupings for name in by if name not in DIMENSIONS[kind]):
        raise FilterError(f"{name!r} is nothing to group {kind} by. Available: {', '.join(DIMENSIONS[kind])}.")
    names = [name for name in DIMENSIONS[kind] if any(name in by for by in groupings)]
    rows = _rows(added, names, chosen, [*sums, *always_by])
    found: list[list[tuple[Alike, Any]]] = [[] for _by in groupings]
    parts = [_part(rows, number, names, by, sums, always_by) for number, by in enumerate(groupings)]
    # A row begins with its number and its dimensions.
    places = [[(name, 1 + names.index(name)) for name in by] for by in groupings]
    for row in rows_of(engine, union_all(*parts) if len(parts) > 1 else parts[0]):
        number = row[0]
        found[number].append((Alike(**{name: row[place] for name, place in places[number]}), row))
    for by, group in zip(groupings, found, strict=True):
        group.sort(key=_sorting_by(by))
    return found


def _sorting_by(by: Sequence[str]) -> Callable[[tuple[Alike, Any]], Any]:
    values = values_of(by)
    return lambda each: values(each[0])


def _rows(added: Subquery, names: Sequence[str], chosen: Filter, others: Sequence[str]) -> CTE:
    """Select the chosen rows with these dimensions, and with other columns under their own names."""
    runs = StoredRun.__table__.c
    by = [(runs[name] if name in _OF_RUNS else added.c[_NAMES.get(name, name)]).label(f"by_{name}") for name in names]
    found = select(*by, *(added.c[name] for name in others)).where(*conditions_on(added, chosen))
    if any(name in _OF_RUNS for name in names):
        found = found.join(StoredRun, StoredRun.id == added.c.run_id)
    return found.cte("figures")


def _part(
    rows: CTE, number: int, names: Sequence[str], by: Sequence[str], sums: Sequence[str], always_by: Sequence[str]
) -> Select[Any]:
    alike = [rows.c[f"by_{name}"] if name in by else cast(null(), Text).label(f"by_{name}") for name in names]
    always = [rows.c[name] for name in always_by]
    columns = [literal_column(str(number), Integer).label("number"), *alike, *always]
    added = [total(rows.c[name]).label(name) for name in sums]
    return select(*columns, *added).group_by(*(rows.c[f"by_{name}"] for name in by), *always)


def _usage_sum(alike: Alike, row: Any) -> UsageSum:
    return UsageSum(alike, usage_in(row), int(row.attempts))
