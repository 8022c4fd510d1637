"""`presswork up` and `presswork down`: the services of one machine, in the background or watched over."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from db.words import POOL
from flows.commands.terminal import screen
from flows.commands.terminal.endings import FAILED, CommandContext, command_context
from flows.commands.terminal.flags import AsJson

if TYPE_CHECKING:
    from flows.control.installation import Installation, State


def up(
    foreground: Annotated[
        bool,
        typer.Option(
            "--foreground",
            help="Stay, and end all when told to or when one of them ends: for systemd and containers.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start what one machine needs: Prefect's server with its UI, the deployments, a worker.

    What already runs is kept, what has ended is started again. All of it listens on this machine only, unless
    PREFECT_SERVER_API_HOST says otherwise.
    """
    with command_context(as_json=as_json) as command:
        from flows.commands.terminal.quiet_prefect import hush  # noqa: PLC0415 - see commands/__init__.py

        settings = command.settings
        hush()
        from flows.control.installation import read_installation  # noqa: PLC0415 - loads Prefect
        from flows.control.services import (  # noqa: PLC0415
            ServiceError,
            ended_by_signals,
            start_services,
            watch_over,
            watch_services,
        )

        here = read_installation(settings)
        began = time.monotonic()
        with ExitStack() as watching:
            if foreground:
                watching.enter_context(ended_by_signals())
                watching.enter_context(watch_over(here.home, here.run_stops_within_s, screen.say))
            state, names = start_services(here, screen.say, watched=foreground)
            _answer(command, here, state, names, time.monotonic() - began)
            try:
                if foreground:
                    watch_services(state)
            except ServiceError as error:
                screen.say(str(error))
                raise typer.Exit(FAILED) from None


def down(as_json: AsJson = False) -> None:
    """Stop what `presswork up` has started, and nothing else.

    Flow runs that its worker has started are stopped as by Ctrl-C: what is in flight is waited for and recorded.
    """
    with command_context(as_json=as_json) as command:
        from flows.control.services import stop_services  # noqa: PLC0415 - see commands/__init__.py

        settings = command.settings
        stopped = stop_services(settings.state_dir.resolve(), settings.stop_wait_s, screen.say)
        words = f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running."
        command.answer({"stopped": stopped}, lambda console: console.print(words))


def _answer(command: CommandContext, here: Installation, state: State, names: list[str], seconds: float) -> None:
    from flows.control.installation import SERVER, WORKER  # noqa: PLC0415 - see commands/__init__.py

    def show(console: Console) -> None:
        console.print(f"It runs, after {seconds:.0f} s.\n")
        logs = [] if state.supervisor else [("logs", f"{here.log(SERVER)}, {here.log(WORKER)}")]
        worker, deployments = ("worker", f"on the work pool {POOL}"), ("deployments", str(len(names)))
        screen.print_facts(console, [("UI", here.url), ("API", here.api), worker, deployments, *logs], indent=2)
        lines = [
            (screen.command("status"), "what runs, what is next, what failed"),
            (screen.command("down"), "ends it"),
            (f"export PREFECT_API_URL={here.api}", "lets Prefect's own command use it"),
        ]
        screen.print_next(console, lines)

    answer = {
        "ui": here.url,
        "api": here.api,
        "pool": POOL,
        "deployments": names,
        "pids": {service: getattr(state, service).pid for service in (SERVER, WORKER)},
        "seconds": round(seconds, 1),
    }
    command.answer(answer, show)
