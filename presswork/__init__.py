"""Turn database records into validated content. A content flow imports all that it needs from here.

    select -> render -> complete -> validate -> record

There is one folder for each concern, from the top down: cli.py and commands/ (the command line), jobs/, rehearsal/ and
terminal/ (shared by the commands), operate/ (server, worker, deployments), trying/ (trials of a template), engine/ (a
run), report/ (a run's reports), pacing/ (when to send a request), answers/ (from a prompt to its outcome), prompts/
(read, check and render a template), claude/ (the only importer of the SDK), output_classes/ (what an answer must be).
Only db/ contains SQL; flows/ and templates/ are the user's.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presswork.choices import Help, TemplateName
    from presswork.engine.flow_runs import open_run
    from presswork.engine.materials.conditions import Generated
    from presswork.engine.materials.handles import Generations
    from presswork.engine.run import Run
    from presswork.options import RunOptions, Selection
    from presswork.report.summary import Summary

__all__ = [
    "Generated",
    "Generations",
    "Help",
    "Run",
    "RunOptions",
    "Selection",
    "Summary",
    "TemplateName",
    "open_run",
]

_HOMES = {
    "Generated": "engine.materials.conditions",
    "Generations": "engine.materials.handles",
    "Help": "choices",
    "Run": "engine.run",
    "RunOptions": "options",
    "Selection": "options",
    "Summary": "report.summary",
    "TemplateName": "choices",
    "open_run": "engine.flow_runs",
}


def __getattr__(name: str) -> Any:
    # On demand: Prefect takes seconds to load, and a wrong call is reported before it is needed.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
