"""The engine: turns templates and records into generations under Prefect.

The root is the way of a record, top to bottom: opening.py (a run from opening to closing), run.py (what flows use),
step.py (render, look up, record), live.py (ask, in chunks), claiming.py (ask for no prompt twice), plan.py
(what the ledger already answers), attempts.py and generations.py (how what happened reaches the ledger), context.py
(what a run hands to its steps). What these stand on is in the folders.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presswork.engine.materials.conditions import Generated
    from presswork.engine.materials.handles import Generations
    from presswork.engine.opening import open_run
    from presswork.engine.run import Run
    from presswork.options import RunOptions, Selection
    from presswork.report.summary import Summary

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
