"""All runs as the rows of one rollup table, in one statement: stored rows of marked runs, live sums of the others."""

from functools import lru_cache
from typing import Any

from sqlalchemy import Select, Subquery, Table, func, literal, literal_column, select, union_all

from db.columns import Base
from db.rollups.attempt_sums import NOTHING
from db.rollups.days import utc_day
from db.rollups.grouped import added_up, outcomes_of_any_model
from db.rollups.marks import unmarked
from db.tables import OutcomeRollup, RolledUp, StoredRun, StoredStep
from db.words import CACHE, FAILED, LIVE, SKIPPED, SUCCEEDED

_KEPT = 32
"""How many of these selects are kept: making one takes as long as running it over a month."""
_AGAIN = ((SUCCEEDED, CACHE, "unchanged"), (FAILED, LIVE, "failed_again"), (SKIPPED, LIVE, "skipped_again"))
"""As which status and origin a step's counts of unchanged records count."""


@lru_cache(maxsize=_KEPT)
def counted(rollup: type[Base], **alike: str | None) -> Subquery:
    """Select the rows of all runs, or of those with these values of columns of runs, with the rollup's columns.

    One statement reads one state of the ledger, so a run that closes meanwhile counts once.
    """
    return union_all(*_both(rollup, alike)).subquery("counted")


@lru_cache(maxsize=_KEPT)
def counted_outcomes(*, with_models: bool = True, **alike: str | None) -> Subquery:
    """Select the outcomes of runs as `counted` does, and the counts of unchanged records from run_steps.

    Those are in the column `unchanged`, by the day on which their run began; no template or model is known of them.
    Open runs are counted sooner without `with_models`; then the column `model` means nothing.
    """
    none = literal(0).label("unchanged")
    stored, live = _both(OutcomeRollup, alike)
    if not with_models:
        live = outcomes_of_any_model(unmarked(**alike))
    return union_all(
        *(each.add_columns(none) for each in (stored, live)),
        *(_again(alike, *which) for which in _AGAIN),
    ).subquery("counted")


def _both(rollup: type[Base], alike: dict[str, str | None]) -> tuple[Select[Any], Select[Any]]:
    table: Any = rollup.__table__
    stored = select(table).join(RolledUp, RolledUp.run_id == table.c.run_id)
    if any(alike.values()):
        stored = stored.join(StoredRun, StoredRun.id == table.c.run_id).where(*_conditions(StoredRun.__table__, alike))
    return stored, added_up(rollup, unmarked(**alike))


def _again(alike: dict[str, str | None], status: str, origin: str, column: str) -> Select[Any]:
    count = StoredStep.__table__.c[column]
    zero: Any = literal_column("0")
    return (
        select(
            StoredStep.run_id,
            utc_day(StoredRun.started_at),
            StoredStep.step,
            NOTHING,
            NOTHING,
            literal(status),
            literal(origin),
            zero,
            zero,
            func.coalesce(count, 0),
        )
        .join(StoredRun, StoredRun.id == StoredStep.run_id)
        .where(count > 0, *_conditions(StoredRun.__table__, alike))
    )


def _conditions(runs: Any, alike: dict[str, str | None]) -> list[Any]:
    columns: Table = runs
    return [columns.c[name] == value for name, value in alike.items() if value is not None]
