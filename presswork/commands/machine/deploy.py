"""`presswork deploy`: make deployments of the flows and templates on a Prefect server, each with its form."""

import asyncio

from presswork.operate import deployments
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_FAILED, CommandContext
from presswork.terminal.flags import DeployFlags
from presswork.terminal.quiet_prefect import needed_api


def deploy(command: CommandContext, flags: DeployFlags) -> int:
    """Deploy all; return EXIT_FAILED if something was left out."""
    console = screen.out()

    def say(line: str) -> None:
        if not command.as_json:
            console.print(screen.data(line), soft_wrap=True)

    with needed_api(command.settings, "deploy to") as server:
        made = asyncio.run(deployments.deploy(work_pool=flags.pool, say=say))
    if command.as_json:
        screen.print_json(
            {
                "server": server,
                "deployments": [{"name": name, "change": change} for name, change in made.changes.items()],
                "left_out": made.left_out,
                "refused": made.refused,
                "paused": made.paused,
                "covered": made.covered,
                "undeclared": made.undeclared,
                "unreadable": made.unreadable,
                "unscheduled": made.unscheduled,
            }
        )
    return 0 if made.is_whole else EXIT_FAILED
