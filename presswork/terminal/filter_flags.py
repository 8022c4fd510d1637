"""The flags by which commands choose generations; the page of generations has the same filters."""

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from presswork.terminal.flags import Flags, OfSandbox

_WHEN = "A date, a moment in UTC, today, yesterday, 7d or 12h."
Since = Annotated[str | None, Option(metavar="WHEN", help=f"From this moment on. {_WHEN}")]
Until = Annotated[str | None, Option(metavar="WHEN", help=f"Up to, and not including, this moment. {_WHEN}")]
OfStep = Annotated[str | None, Option(help="Only of this step.")]
OfEndpoint = Annotated[str | None, Option(help="Only of this endpoint, such as anthropic or sandbox.")]
OfTemplate = Annotated[
    str | None, Option(metavar="HASH", help="Only of this version of a template: its hash, or the beginning of it.")
]
OfModel = Annotated[str | None, Option(help="Only of prompts for this model.")]
OfOrigin = Annotated[str | None, Option(help="Only of this origin: live, batch or cache.")]
OfTrigger = Annotated[str | None, Option(help="Only of runs that this started: command, schedule, deployment, try.")]
OfCause = Annotated[
    str | None,
    Option(metavar="KIND", help="Only without content for this cause, such as refusal; none: without a cause."),
]


@dataclass(frozen=True, kw_only=True)
class FigureFlags(Flags):
    """The flags by which figures are kept, so that sums over them are quick."""

    flow: Annotated[str | None, Option(help="Only of this flow.")] = None
    step: OfStep = None
    endpoint: OfEndpoint = None
    template: OfTemplate = None
    model: OfModel = None
    run: Annotated[str | None, Option(metavar="ID", help="Only of this run: its id, or its beginning or end.")] = None
    trigger: OfTrigger = None
    since: Since = None
    until: Until = None
    sandbox: OfSandbox = False


@dataclass(frozen=True, kw_only=True)
class FilterFlags(FigureFlags):
    """The flags of all commands that choose generations."""

    status: Annotated[
        str | None,
        Option(help="Only with this status, such as succeeded or failed; without_content: all but succeeded."),
    ] = None
    cause: OfCause = None
    origin: OfOrigin = None
    key: Annotated[str | None, Option(help="Only of this record key. End it with * for all keys that begin so.")] = None
