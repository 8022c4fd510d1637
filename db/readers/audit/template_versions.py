"""Read the versions of templates: when each was in use, and what its generations came to.

A version is the hash of a template's sources; it is used by the step with the template's name. A step that is made in
code has versions too, without a stored source.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Row, case, func, select

from db.readers.audit.filters import Filter, FilterError
from db.readers.audit.sums import conditions_on
from db.readers.figures import TotalUsage
from db.readers.run_figures import sums_of_usage, usage_in
from db.rollups.attempt_sums import total
from db.rollups.counted import counted, counted_outcomes
from db.session import rows_of
from db.tables import StoredRun, StoredTemplate, UsageRollup
from db.words import CACHE, REPAIR, REQUESTED, SANDBOX, SKIPPED, SUCCEEDED, TRY

_COUNTS = ("generations", "cached", "without_content", "tried", "on_sandbox", "requested")
_NO_USAGE = TotalUsage(cost_usd=Decimal(0))
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """What the generations of one or several versions came to.

    `generations` count in their runs; of these `cached` were reused, `without_content` ended without content, `tried`
    are of trials, and `on_sandbox` ran on the sandbox, so that nothing was billed for them. The `requested` ones, with
    those that were replaced, are those to which `usage` belongs; `repairs` are requests.
    """

    generations: int = 0
    cached: int = 0
    without_content: int = 0
    tried: int = 0
    on_sandbox: int = 0
    requested: int = 0
    repairs: int = 0
    usage: TotalUsage = _NO_USAGE

    @property
    def failure_rate(self) -> float | None:
        """The part of the generations without content, from 0 to 1; None if there are none."""
        return self.without_content / self.generations if self.generations else None

    @property
    def cost_each_usd(self) -> Decimal | None:
        """The cost of a requested generation; None if there are none, or if no price is known."""
        if not self.requested or self.usage.cost_usd is None:
            return None
        return self.usage.cost_usd / self.requested

    @property
    def input_tokens_each(self) -> float | None:
        """The input tokens of a requested generation, None if there are none."""
        return self.usage.input_tokens / self.requested if self.requested else None

    @property
    def output_tokens_each(self) -> float | None:
        """The output tokens of a requested generation, None if there are none."""
        return self.usage.output_tokens / self.requested if self.requested else None


@dataclass(frozen=True, slots=True)
class VersionUse:
    """When runs used a version, and its figures. All are None or 0 if it was not used.

    `first_run_id` began at `first_used_at`, `last_run_id` at `last_used_at`. Trials are only in the figures.
    """

    runs: int = 0
    first_run_id: str | None = None
    last_run_id: str | None = None
    first_used_at: datetime | None = None
    last_used_at: datetime | None = None
    figures: VersionFigures = VersionFigures()


_NO_USE = VersionUse()


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """A version of a template. `sources` and `first_seen_at` are None if only its use is known."""

    hash: str
    name: str
    first_seen_at: datetime | None
    sources: dict[str, str] | None
    use: VersionUse


@dataclass(frozen=True, slots=True)
class TemplateLine:
    """A template in a list of all: the number of its versions, the last one that a run used, the figures of a period.

    Trials are only in the figures, and count among no uses.
    """

    name: str
    versions: int
    last_used: str | None
    last_used_at: datetime | None
    figures: VersionFigures


def template_versions(engine: Engine, name: str) -> list[TemplateVersion]:
    """Return the versions of a template or of a step with this name, the last used first; empty if there is none."""
    t, of_step = StoredTemplate, Filter(step=name)
    stored = {row.hash: row for row in rows_of(engine, select(t.__table__).where(t.name == name))}
    outcomes = {row.template_hash: row for row in _outcomes(engine, of_step)}
    usages = {row.template_hash: row for row in _usages(engine, ("step", "template_hash"), of_step)}
    found = []
    for each in dict.fromkeys((*stored, *outcomes)):
        row, of_source = outcomes.get(each), stored.get(each)
        use = _NO_USE if row is None else _use(row, usages.get(each))
        first_seen = None if of_source is None else of_source.first_seen_at
        found.append(TemplateVersion(each, name, first_seen, None if of_source is None else of_source.sources, use))
    return sorted(found, key=_recency, reverse=True)


def list_templates(engine: Engine, since: datetime | None = None, until: datetime | None = None) -> list[TemplateLine]:
    """Return all templates, and the steps without one, by name, with their figures of the UTC days of a period."""
    period = Filter(since=since, until=until)
    uses = defaultdict[str, list[Row[Any]]](list)
    versions = defaultdict[str, set[str]](set)
    for name, template_hash in rows_of(engine, select(StoredTemplate.name, StoredTemplate.hash)):
        versions[name].add(template_hash)
    for row in _outcomes(engine, period):
        versions[row.step].add(row.template_hash)
        uses[row.step].append(row)
    usages = {row.step: row for row in _usages(engine, ("step",), period)}
    return [_template(name, len(versions[name]), uses[name], usages.get(name)) for name in sorted(versions)]


def _template(name: str, versions: int, uses: Sequence[Row[Any]], usage: Row[Any] | None) -> TemplateLine:
    last = max((row for row in uses if row.runs), key=lambda row: row.last_run_id, default=None)
    figures = _figures(uses, usage)
    if last is None:
        return TemplateLine(name, versions, None, None, figures)
    return TemplateLine(name, versions, last.template_hash, last.last_used_at, figures)


def _use(row: Row[Any], usage: Row[Any] | None) -> VersionUse:
    return VersionUse(
        row.runs, row.first_run_id, row.last_run_id, row.first_used_at, row.last_used_at, _figures([row], usage)
    )


def _figures(rows: Sequence[Row[Any]], usage: Row[Any] | None) -> VersionFigures:
    counts = {name: sum(int(getattr(row, name)) for row in rows) for name in _COUNTS}
    repairs = 0 if usage is None else int(usage.repairs)
    used = _NO_USAGE if usage is None else usage_in(usage)
    return VersionFigures(**counts, repairs=repairs, usage=used)


def _recency(version: TemplateVersion) -> tuple[str, datetime, str]:
    # Versions that were never used follow all others, the newest of them first.
    return version.use.last_run_id or "", version.first_seen_at or _LONG_AGO, version.hash


def only_tried(engine: Engine, name: str) -> set[str]:
    """Return the hashes of the versions of a template that trials used, and no other run, open ones included."""
    return {row.template_hash for row in _outcomes(engine, Filter(step=name)) if not row.runs}


def chosen_version(versions: Sequence[TemplateVersion], beginning: str) -> TemplateVersion:
    """Return the version whose hash begins so. Raises FilterError if there is none or several."""
    fitting = [version for version in versions if version.hash.startswith(beginning.lower())]
    if len(fitting) != 1:
        listed = ", ".join(version.hash[:12] for version in versions[:10])
        raise FilterError(f"{beginning!r} is not the beginning of one version's hash. Available: {listed}.")
    return fitting[0]


def _outcomes(engine: Engine, wanted: Filter) -> list[Row[Any]]:
    """Select the counts of each version in use, by step."""
    # The models of an open run are not needed here, and take longer to read than all the rest.
    counted_rows = counted_outcomes(with_models=False)
    o = counted_rows.c
    is_trial = StoredRun.trigger == TRY
    was_requested = o.origin.in_(REQUESTED) & (o.status != SKIPPED)
    statement = (
        select(
            o.step,
            o.template_hash,
            total(o.generations).label("generations"),
            total(case((o.origin == CACHE, o.generations))).label("cached"),
            total(case((o.status != SUCCEEDED, o.generations))).label("without_content"),
            total(case((is_trial, o.generations))).label("tried"),
            total(case((StoredRun.endpoint == SANDBOX, o.generations))).label("on_sandbox"),
            total(case((was_requested, o.generations + o.replaced))).label("requested"),
            func.count(case((~is_trial, o.run_id)).distinct()).label("runs"),
            func.min(case((~is_trial, o.run_id))).label("first_run_id"),
            func.max(case((~is_trial, o.run_id))).label("last_run_id"),
            func.min(case((~is_trial, StoredRun.started_at))).label("first_used_at"),
            func.max(case((~is_trial, StoredRun.started_at))).label("last_used_at"),
        )
        .join(StoredRun, StoredRun.id == o.run_id)
        # No version is known of unchanged records.
        .where(o.unchanged == 0, *conditions_on(counted_rows, wanted))
        .group_by(o.step, o.template_hash)
    )
    return rows_of(engine, statement)


def _usages(engine: Engine, alike: Sequence[str], wanted: Filter) -> list[Row[Any]]:
    """Select the sums of the requests of each version in use, or of each step."""
    added = counted(UsageRollup)
    groups = [added.c[each] for each in alike]
    repairs = total(case((added.c.kind == REPAIR, added.c.requests))).label("repairs")
    statement = select(*groups, repairs, *sums_of_usage(added.c)).where(*conditions_on(added, wanted))
    # An attempt whose generation was never written has no step.
    return rows_of(engine, statement.where(added.c.step != "").group_by(*groups))
