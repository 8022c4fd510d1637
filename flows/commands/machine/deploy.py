"""`presswork deploy`: the flows and templates become deployments on a Prefect server, each with its form."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.commands.terminal import screen
from flows.commands.terminal.endings import FAILED, command_context
from flows.commands.terminal.flags import AsJson


def deploy(
    pool: Annotated[str, typer.Option(help="The work pool whose workers make the runs.")] = "presswork",
    as_json: AsJson = False,
) -> None:
    """Deploy the flows of prefect.yaml, and each template that selects its own records and is no step of a flow.

    Deploying again changes only what differs, and leaves each schedule on or paused as it stands. Exit status: 0 all
    is deployed, 1 some could not be and was left out, 2 the call or the configuration is wrong.
    """
    with command_context(as_json=as_json) as command:
        from flows.commands.terminal.quiet_prefect import needed_api  # noqa: PLC0415 - see commands/__init__.py

        console = screen.out()

        def say(line: str) -> None:
            if not as_json:
                console.print(screen.data(line), soft_wrap=True)

        with needed_api(command.settings, "deploy to") as server:
            from flows.control.deployments import deploy as make  # noqa: PLC0415 - loads Prefect

            made = asyncio.run(make(work_pool=pool, say=say))
        if as_json:
            screen.print_json(
                {
                    "server": server,
                    "deployments": [{"name": name, "change": change} for name, change in made.changes.items()],
                    "left_out": made.left_out,
                    "refused": made.refused,
                    "paused": made.paused,
                    "covered": made.covered,
                    "unscheduled": made.unscheduled,
                }
            )
        if not made.is_whole:
            raise typer.Exit(FAILED)
