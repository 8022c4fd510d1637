"""Add up usage, outcomes and use of the prompt cache over any period, grouped by whatever is asked for.

Rollups of closed runs and live sums of the others are added in one statement, so a figure is the same while a run is
open and after it has closed. Rollups are kept by day: a period counts as the whole UTC days that it touches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, Subquery, select

from db.readers.audit.filters import Filter, FilterError
from db.readers.figures import CACHE_SUMS, PRICED_BY, PromptCacheUse, TotalUsage, cache_use_of
from db.rollups.attempt_sums import dollars_of, total
from db.rollups.counted import counted, counted_outcomes
from db.session import rows_of
from db.tables import PromptCacheRollup, StoredRun, UsageRollup
from db.words import CACHE, SUCCEEDED

_WHOLE_HASH = 64
_OF_RUNS = ("flow", "endpoint")
_NAMES = {"run": "run_id", "template": "template_hash", "tier": "service_tier", "error": "error_type"}
"""The columns of rollups that have another name than their dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """What the rows of a sum have in common: None if they are not grouped by it, '' if there is no value.

    `day` is a UTC day, such as 2026-03-01; `template` a version's hash; `tier` and `error` are of attempts.
    """

    day: str | None = None
    flow: str | None = None
    endpoint: str | None = None
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
    """The usage and cost of attempts that are alike; `latency_ms` is the sum over the `timed` ones.

    `attempts` include those that were never sent. The model is the one that answered, '' without an answer.
    """

    alike: Alike
    usage: TotalUsage
    attempts: int
    latency_ms: int
    timed: int


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
    """Add up usage and cost, grouped by DIMENSIONS["usage"]; one sum if `by` is empty.

    Raises FilterError if the filter has a value by which figures are not kept.
    """
    added, wanted = _counted("usage", UsageRollup, chosen), chosen or Filter()
    names = [column.name for column in UsageRollup.__table__.c if not column.primary_key]
    sums = [total(added.c[name]).label(name) for name in names]
    return [_usage_sum(_alike(by, row), row) for row in rows_of(engine, _select("usage", added, by, wanted, sums))]


def outcomes_by(engine: Engine, by: Sequence[str], chosen: Filter | None = None) -> list[OutcomeSum]:
    """Count outcomes, grouped by DIMENSIONS["outcomes"]. Unchanged records count on the day on which their run began.

    No template and no model is known of unchanged records. Raises FilterError as `sums_by` does.
    """
    wanted = chosen or Filter()
    added = counted_outcomes(**chosen_runs("outcomes", wanted))
    sums = [total(added.c[name]).label(name) for name in ("generations", "replaced", "unchanged")]
    return [
        OutcomeSum(_alike(by, row), int(row.generations), int(row.replaced), int(row.unchanged))
        for row in rows_of(engine, _select("outcomes", added, by, wanted, sums))
    ]


def cache_use_by(engine: Engine, by: Sequence[str], chosen: Filter | None = None) -> list[CacheUseSum]:
    """Add up the use of the prompt cache, grouped by DIMENSIONS["prompt cache"] and by what sets the price.

    Raises FilterError as `sums_by` does.
    """
    added, wanted = _counted("prompt cache", PromptCacheRollup, chosen), chosen or Filter()
    sums = [total(added.c[name]).label(name) for name in CACHE_SUMS]
    priced_by = [added.c[name].label(f"priced_by_{name}") for name in PRICED_BY]
    statement = _select("prompt cache", added, by, wanted, sums).add_columns(*priced_by)
    found = rows_of(engine, statement.group_by(*(added.c[name] for name in PRICED_BY)))
    return [CacheUseSum(_alike(by, row), cache_use_of(row, "priced_by_")) for row in found]


def whole_days(since: datetime | None, until: datetime | None) -> tuple[str | None, str | None]:
    """Return the UTC days of a period: the first one, and the one after the last."""
    first = None if since is None else since.astimezone(UTC).date().isoformat()
    if until is None:
        return first, None
    return first, (until.astimezone(UTC) - timedelta(microseconds=1) + timedelta(days=1)).date().isoformat()


def conditions_on(added: Subquery, chosen: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter on rows of a rollup; those on runs are not among them."""
    first, after = whole_days(chosen.since, chosen.until)
    found = [
        added.c[name] == value
        for name, value in (
            ("step", chosen.step),
            ("model", chosen.model),
            ("status", chosen.status),
            ("origin", chosen.origin),
        )
        if value is not None
    ]
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
    return {"flow": chosen.flow, "endpoint": chosen.endpoint, "id": chosen.run}


def _counted(kind: str, rollup: Any, chosen: Filter | None) -> Subquery:
    return counted(rollup, **chosen_runs(kind, chosen or Filter()))


def _select(kind: str, added: Subquery, by: Sequence[str], chosen: Filter, sums: Sequence[Any]) -> Select[Any]:
    unknown = [each for each in by if each not in DIMENSIONS[kind]]
    if unknown:
        raise FilterError(f"{unknown[0]!r} is nothing to group {kind} by. Available: {', '.join(DIMENSIONS[kind])}.")
    columns = {
        name: StoredRun.__table__.c[name] if name in _OF_RUNS else added.c[_NAMES.get(name, name)] for name in by
    }
    named = [column.label(f"by_{name}") for name, column in columns.items()]
    found = select(*named, *sums).where(*conditions_on(added, chosen)).group_by(*columns.values())
    if not any(name in _OF_RUNS for name in by):
        return found.order_by(*columns.values())
    return found.join(StoredRun, StoredRun.id == added.c.run_id).order_by(*columns.values())


def _alike(by: Sequence[str], row: Any) -> Alike:
    return Alike(**{name: getattr(row, f"by_{name}") for name in by})


def _usage_sum(alike: Alike, row: Any) -> UsageSum:
    written = int(row.cache_creation_5m_tokens) + int(row.cache_creation_1h_tokens)
    usage = TotalUsage(
        requests=int(row.requests),
        input_tokens=int(row.input_tokens) + written + int(row.cache_read_tokens),
        output_tokens=int(row.output_tokens),
        cache_creation_tokens=written,
        cache_read_tokens=int(row.cache_read_tokens),
        cost_usd=None if row.unpriced and not row.priced else dollars_of(row.cost_e10),
        unpriced=int(row.unpriced),
        perhaps_billed=int(row.perhaps_billed),
        rate_limited=int(row.rate_limited),
        likely_usd=None if row.perhaps_billed and not row.estimated else dollars_of(row.likely_e10),
    )
    return UsageSum(alike, usage, int(row.attempts), int(row.latency_ms), int(row.timed))
