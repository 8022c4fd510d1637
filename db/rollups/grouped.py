"""The selects that add runs up, with the columns of the rollup tables in their order.

They are defined once: a run's rollups are written from them when it closes, and figures use them for the other runs. So
a figure is the same before and after.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Integer, Label, Select, case, func, literal_column, select

from db.columns import Base
from db.rollups.attempt_sums import (
    COST,
    IS_RATE_LIMITED,
    IS_UNPRICED,
    LENGTH,
    LIKELY_COST,
    MAY_BE_BILLED,
    NOTHING,
    READ,
    WAS_SENT,
    WRITTEN,
    WRITTEN_1H,
    WRITTEN_5M,
    total,
)
from db.rollups.days import utc_day
from db.tables import (
    Attempt,
    Generation,
    OutcomeRollup,
    PromptCacheRollup,
    StoredPrompt,
    UsageRollup,
)

_KEPT_OF_A_WORD = 100
"""The number of characters that a rollup keeps of a model, a tier, a place, a speed or an error."""
ROLLUPS: tuple[type[Base], ...] = (UsageRollup, OutcomeRollup, PromptCacheRollup)


def added_up(rollup: type[Base], runs: Any) -> Select[Any]:
    """Add up the runs with these ids, a sequence or a select of them, as the rows of a rollup table."""
    return _SELECTS[rollup].where(_RUN_OF[rollup].in_(runs))


def outcomes_of_any_model(runs: Any) -> Select[Any]:
    """Count outcomes as `added_up` does, without their models: looking these up takes most of the time."""
    return _outcomes(NOTHING).where(Generation.run_id.in_(runs))


def _grouped(rollup: type[Base], alike: Mapping[str, Any], sums: Mapping[str, Any]) -> Select[Any]:
    """Select sums of rows that are alike; the names must be those of the table, all of them."""
    columns = {name: column.label(name) for name, column in {**alike, **sums}.items()}
    ordered: list[Label[Any]] = [columns[column.name] for column in rollup.__table__.c]
    # PostgreSQL groups by no constant.
    return select(*ordered).group_by(*(column for column in alike.values() if column is not NOTHING))


_OF_GENERATION = {
    "step": func.coalesce(Generation.step, NOTHING),
    "template_hash": func.coalesce(Generation.template_hash, NOTHING),
}


def _word(column: Any) -> ColumnElement[str]:
    """Cut a word of an endpoint: PostgreSQL refuses a row if its key is too long, and a run must be able to close."""
    return func.substr(column, literal_column("1", Integer), literal_column(str(_KEPT_OF_A_WORD), Integer))


def _or_nothing(*columns: Any) -> dict[str, ColumnElement[str]]:
    return {column.name: func.coalesce(_word(column), NOTHING) for column in columns}


def _outcomes(model: ColumnElement[str]) -> Select[Any]:
    alike = {
        "run_id": Generation.run_id,
        "day": utc_day(Generation.created_at),
        "step": Generation.step,
        "template_hash": Generation.template_hash,
        "model": model,
        "status": Generation.status,
        "origin": Generation.origin,
    }
    counts = {
        "generations": total(case((Generation.replaced_by == NOTHING, 1), else_=0)),
        "replaced": total(case((Generation.replaced_by == NOTHING, 0), else_=1)),
    }
    return _grouped(OutcomeRollup, alike, counts).select_from(Generation)


_SELECTS = {
    UsageRollup: _grouped(
        UsageRollup,
        {
            "run_id": Attempt.run_id,
            "day": utc_day(Attempt.started_at),
            **_OF_GENERATION,
            **_or_nothing(Attempt.model, Attempt.service_tier),
            "kind": Attempt.kind,
            **_or_nothing(Attempt.error_type),
        },
        {
            "attempts": func.count(Attempt.id),
            "requests": total(WAS_SENT),
            "input_tokens": total(Attempt.input_tokens),
            "output_tokens": total(Attempt.output_tokens),
            "cache_creation_5m_tokens": total(WRITTEN_5M),
            "cache_creation_1h_tokens": total(WRITTEN_1H),
            "cache_read_tokens": total(READ),
            "cost_e10": total(COST),
            "priced": func.count(Attempt.cost_usd),
            "unpriced": total(IS_UNPRICED),
            "perhaps_billed": total(case((MAY_BE_BILLED, 1), else_=0)),
            "likely_e10": total(LIKELY_COST),
            "estimated": func.count(LIKELY_COST),
            "rate_limited": total(IS_RATE_LIMITED),
            "latency_ms": total(Attempt.latency_ms),
            "timed": func.count(Attempt.latency_ms),
        },
    )
    .select_from(Attempt)
    .outerjoin(Generation, Generation.id == Attempt.generation_id),
    OutcomeRollup: _outcomes(func.coalesce(StoredPrompt.model, NOTHING)).outerjoin(
        StoredPrompt, StoredPrompt.hash == Generation.prompt_hash
    ),
    PromptCacheRollup: _grouped(
        PromptCacheRollup,
        {
            "run_id": Attempt.run_id,
            "day": utc_day(Attempt.ended_at),
            **_OF_GENERATION,
            "model": _word(Attempt.model),
            **_or_nothing(Attempt.service_tier, Attempt.inference_geo, Attempt.speed),
            "prompt_tokens": LENGTH,
        },
        {
            "written_5m": total(WRITTEN_5M),
            "written_1h": total(WRITTEN_1H),
            "read": total(READ),
            "writes": total(case((WRITTEN > 0, 1), else_=0)),
            "reads": total(case((READ > 0, 1), else_=0)),
        },
    )
    .select_from(Attempt)
    .outerjoin(Generation, Generation.id == Attempt.generation_id)
    .where(Attempt.model.is_not(None), Attempt.ended_at.is_not(None), WRITTEN + READ > 0),
}
_RUN_OF = {UsageRollup: Attempt.run_id, OutcomeRollup: Generation.run_id, PromptCacheRollup: Attempt.run_id}
