"""Read what a run was started with, for `presswork run --resume RUN_ID`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from db.readers.figures import find_run
from db.readers.runs import read_run
from flows.commands.ledger.ledgers import find_by_id
from flows.settings import Settings


@dataclass(frozen=True)
class ResumedRun:
    """A run to resume: what it ran, with which values for its params and which options."""

    run_id: str
    flow: str
    sets: Mapping[str, Any]
    options: Mapping[str, Any]


def find_resumed(settings: Settings, run_id: str) -> ResumedRun:
    """Find a run in whichever ledger has it; ConfigurationError where none has."""
    _url, found = find_by_id(settings, read_resumed, "run", run_id)
    return found


def read_resumed(ledger: Engine, run_id: str) -> ResumedRun | None:
    """Find a run by its id, or a unique part of it; None where the ledger does not have it."""
    line = find_run(ledger, run_id)
    row = read_run(ledger, line.id) if line is not None else None
    if row is None:
        return None
    parameters: Mapping[str, Any] = row["parameters"]
    options: Mapping[str, Any] = parameters.get("options") or {}
    return ResumedRun(
        run_id=row["id"],
        flow=row["flow"],
        # As they were, not as text: null, a truth value or a list would be another value.
        sets=dict(parameters.get("selection") or parameters.get("params") or {}),
        # A refresh goes on as one: what it has asked for since it began is not asked for again.
        options={name: value for name, value in options.items() if name not in {"resumes", "shard"}},
    )
