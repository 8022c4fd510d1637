"""Resuming: `presswork run --resume RUN_ID` goes on from a run with what it was started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from db.ledger.connecting import open_ledger
from db.readers.run_lines import find_run
from db.readers.runs import read_run
from flows.commands.ledger.ledgers import ledger_urls
from flows.errors import ConfigurationError
from flows.settings import Settings


@dataclass(frozen=True)
class Past:
    """A run to go on from: what it ran, with which values for its params and which options."""

    run_id: str
    flow: str
    sets: Mapping[str, Any]
    options: Mapping[str, Any]


def read_past(settings: Settings, run_id: str) -> Past:
    """Find a run by its id, or a unique part of it; ConfigurationError where there is none or it was another flow's."""
    for url in ledger_urls(settings):
        ledger = open_ledger(url)
        try:
            found = _find(ledger, run_id)
        finally:
            ledger.dispose()
        if found is not None:
            return found
    raise ConfigurationError(f"There is no run {run_id!r} to go on from; `presswork history` lists them.")


def _find(ledger: Engine, run_id: str) -> Past | None:
    line = find_run(ledger, run_id)
    row = read_run(ledger, line.id) if line is not None else None
    if row is None:
        return None
    parameters: Mapping[str, Any] = row["parameters"]
    given: Mapping[str, Any] = parameters.get("selection") or parameters.get("params") or {}
    options: Mapping[str, Any] = parameters.get("options") or {}
    return Past(
        run_id=row["id"],
        flow=row["flow"],
        # As they were, not as text: null, a truth value or a list would be another value.
        sets=dict(given),
        # A refresh goes on as one: what it has asked for since it began is not asked for again.
        options={name: value for name, value in options.items() if name not in {"resumes", "shard"}},
    )
