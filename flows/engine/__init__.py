"""The engine: turns templates and records into generations under Prefect.

Read run.py (a run from opening to closing), generate.py (one step: render, look up, send, record), plan.py (what the
ledger already answers), chunks.py (the Prefect task), results.py (Prefect's cache, served by the ledger), pace.py (when
a request may go), journal.py and writer.py (how what happened reaches the ledger).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.engine.materials.conditions import Generated
    from flows.engine.materials.handles import Generations
    from flows.engine.opening import open_run
    from flows.engine.options import RunOptions, Selection
    from flows.engine.report.summary import Summary
    from flows.engine.run import Run

__all__ = ["Generated", "Generations", "Run", "RunOptions", "Selection", "Summary", "open_run"]

_HOMES = {
    "Generated": "materials.conditions",
    "Generations": "materials.handles",
    "Run": "run",
    "RunOptions": "options",
    "Selection": "options",
    "Summary": "report.summary",
    "open_run": "opening",
}


def __getattr__(name: str) -> Any:
    # On demand: Prefect takes seconds to load, and what is wrong with a call is said before it is needed.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
