"""List the values that filters can have, for the choices of forms: all that closed runs had, cheaply from the rollups.

A value that only an open run has is missing until the run closes, except flows, steps and endpoints.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select, union

from db.readers.audit.filters import CHOSEN_STATUSES
from db.session import rows_of
from db.tables import OutcomeRollup, StoredRun, StoredStep, StoredTemplate
from db.words import ORIGINS


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """A template version to choose; `last_used_at` is the start of the last run that used it, None if none did."""

    hash: str
    name: str
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class FilterValues:
    """The values that filters can have, sorted; templates by name, of one name the last used first."""

    flows: list[str]
    steps: list[str]
    endpoints: list[str]
    templates: list[TemplateChoice]
    models: list[str]
    statuses: tuple[str, ...] = CHOSEN_STATUSES
    origins: tuple[str, ...] = ORIGINS


def values_of_filters(engine: Engine) -> FilterValues:
    """Return the values that the filters of generations and runs can have."""
    runs = rows_of(engine, select(StoredRun.flow, StoredRun.endpoint).distinct())
    steps = rows_of(engine, union(select(OutcomeRollup.step), select(StoredStep.step)))
    models = rows_of(engine, select(OutcomeRollup.model).distinct().where(OutcomeRollup.model != ""))
    return FilterValues(
        flows=sorted({run.flow for run in runs}),
        steps=sorted(row.step for row in steps),
        endpoints=sorted({run.endpoint for run in runs}),
        templates=_templates(engine),
        models=sorted(row.model for row in models),
    )


def _templates(engine: Engine) -> list[TemplateChoice]:
    o, t = OutcomeRollup, StoredTemplate
    last_used = (
        select(o.step, o.template_hash, func.max(StoredRun.started_at))
        .join(StoredRun, StoredRun.id == o.run_id)
        .group_by(o.step, o.template_hash)
    )
    used = {(step, template_hash): moment for step, template_hash, moment in rows_of(engine, last_used)}
    stored = [(name, each) for name, each in rows_of(engine, select(t.name, t.hash).order_by(t.first_seen_at.desc()))]
    # Sorted twice: sorting keeps the order of equal names, here the last used first, then the newest.
    found = [TemplateChoice(each, name, used.get((name, each))) for name, each in {**dict.fromkeys(stored), **used}]
    found.sort(key=lambda choice: choice.last_used_at.timestamp() if choice.last_used_at else 0.0, reverse=True)
    return sorted(found, key=lambda choice: choice.name)
