"""Presswork turns database records into validated content. A content flow imports from here what it needs.

    select -> render -> complete -> validate -> record

One folder a concern, from the top down: cli.py and commands/ (what people type), jobs/, rehearsal/ and terminal/ (what
commands share), operate/ (server, worker, deployments), engine/ (a run under Prefect), report/ (what a run says of
itself), pacing/ (when a request may go), answers/ (one prompt to its outcome), prompts/ (a template file: read,
checked, rendered), claude/ (the only importer of the SDK), output_classes/ (what an answer must be). Only db/ speaks
SQL; flows/ and templates/ are the user's.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presswork.choices import Help, TemplateName
    from presswork.engine.materials.conditions import Generated
    from presswork.engine.materials.handles import Generations
    from presswork.engine.opening import open_run
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
    "open_run": "engine.opening",
}


def __getattr__(name: str) -> Any:
    # On demand: Prefect takes seconds to load, and what is wrong with a call is said before it is needed.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
