"""Find out whether a ledger has a flow, step, endpoint or model at all, and which it has instead."""

from typing import Any

from sqlalchemy import Engine, select, union

from db.rollups.marks import unmarked
from db.session import rows_of
from db.tables import Generation, OutcomeRollup, StoredPrompt, StoredRun, StoredStep

_KEPT: dict[str, tuple[Any, ...]] = {
    "flow": (StoredRun.flow,),
    "step": (OutcomeRollup.step, StoredStep.step),
    "endpoint": (StoredRun.endpoint,),
    "model": (OutcomeRollup.model,),
}
NAMED = tuple(_KEPT)
"""The names that can be looked up."""


def names_instead(engine: Engine, name: str, value: str) -> list[str]:
    """Return all names that the ledger has if this one is not among them; [] if it is, or if there are none."""
    columns = _KEPT[name]
    if any(rows_of(engine, select(column).where(column == value).limit(1)) for column in columns):
        return []
    if _is_of_a_run_not_added_up(engine, name, value):
        return []
    every = union(*(select(column.label("name")).where(column != "") for column in columns))
    return sorted(row.name for row in rows_of(engine, every))


def _is_of_a_run_not_added_up(engine: Engine, name: str, value: str) -> bool:
    found = select(Generation.id).where(Generation.run_id.in_(unmarked()))
    if name == "step":
        found = found.where(Generation.step == value)
    elif name == "model":
        model = select(StoredPrompt.model).where(StoredPrompt.hash == Generation.prompt_hash).scalar_subquery()
        found = found.where(model == value)
    else:
        return False
    return bool(rows_of(engine, found.limit(1)))
