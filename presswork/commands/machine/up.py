"""`presswork up` and `presswork down`: the services of one machine, in the background or watched over."""

import time
from contextlib import ExitStack

from rich.console import Console

from db.words import POOL
from presswork.operate.installation import SERVER, WORKER, Installation, State, read_installation
from presswork.operate.services import (
    ServiceError,
    ended_by_signals,
    start_services,
    stop_services,
    watch_over,
    watch_services,
)
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_FAILED, CommandContext
from presswork.terminal.flags import DownFlags, UpFlags


def up(command: CommandContext, flags: UpFlags) -> int:
    """Start the services; with `--foreground` watch over them, and return EXIT_FAILED when one of them has ended."""
    here = read_installation(command.settings)
    began = time.monotonic()
    with ExitStack() as watching:
        if flags.foreground:
            watching.enter_context(ended_by_signals())
            watching.enter_context(watch_over(here.home, here.run_stops_within_s, screen.say))
        state, names = start_services(here, screen.say, watched=flags.foreground)
        _answer(command, here, state, names, time.monotonic() - began)
        try:
            if flags.foreground:
                watch_services(state)
        except ServiceError as error:
            screen.say(str(error))
            return EXIT_FAILED
    return 0


def down(command: CommandContext, _flags: DownFlags) -> None:
    """Stop the services, and say which."""
    settings = command.settings
    stopped = stop_services(settings.state_dir.resolve(), settings.stop_wait_s, screen.say)
    words = f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running."
    command.answer({"stopped": stopped}, lambda console: console.print(words))


def _answer(command: CommandContext, here: Installation, state: State, names: list[str], seconds: float) -> None:
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
