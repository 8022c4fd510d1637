"""The flags of the commands that read the ledger: what was generated, from what, by which prompt, at what price."""

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from presswork.terminal.flags import Flags, OfSandbox


@dataclass(frozen=True)
class HistoryFlags(Flags):
    """List the runs, or show one run or one record's history.

    The list begins with the newest run. A single run is shown with its steps and failures. --key shows a record's
    history in a flow or a step: when each content was current, and how many runs confirmed it.
    """

    run: Annotated[
        str | None,
        Argument(
            metavar="RUN|NAME",
            help="A run's id, or at least 6 characters of its start or end. With --key: a flow or step.",
        ),
    ] = None
    key: Annotated[str | None, Option(help="Show the history of the record with this key.")] = None
    flow: Annotated[str | None, Option(help="List only runs of this flow.")] = None
    limit: Annotated[int, Option(min=1, help="List at most this many runs.")] = 20
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class ShowFlags(Flags):
    """Show one generation, from record to cost.

    Shows its record, the prompt as sent, the answer, each attempt with its usage and cost, and its lineage.
    """

    identifier: Annotated[
        str, Argument(metavar="ID", help="A generation's id, or at least 6 characters of its start or end.")
    ]
    sandbox: OfSandbox = False
