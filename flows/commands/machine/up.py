"""`presswork up` and `presswork down`: the services of one machine, in the background or watched over."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from db.words import POOL
from flows.commands.terminal import screen
from flows.commands.terminal.endings import FAILED, reported_errors
from flows.commands.terminal.flags import AsJson


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
    with reported_errors(as_json=as_json):
        from flows.commands.terminal.quiet_prefect import hush  # noqa: PLC0415 - see commands/__init__.py
        from flows.settings import load_settings  # noqa: PLC0415

        settings = load_settings()
        hush()
        from flows.control.installation import read_installation  # noqa: PLC0415 - loads Prefect
        from flows.control.services import start_services  # noqa: PLC0415
        from flows.control.shutdown import (  # noqa: PLC0415
            ServiceError,
            ended_by_signals,
            watch_over,
            watch_services,
        )

        installation = read_installation(settings)
        began = time.monotonic()
        if not foreground:
            state, names = start_services(installation, _say)
            _announce(installation, state, names, time.monotonic() - began, as_json=as_json)
            return
        with ended_by_signals(), watch_over(installation.home, installation.run_stops_within_s, _say):
            state, names = start_services(installation, _say, watched=True)
            _announce(installation, state, names, time.monotonic() - began, as_json=as_json)
            try:
                watch_services(state)
            except ServiceError as error:
                _say(str(error))
                raise typer.Exit(FAILED) from None


def down(as_json: AsJson = False) -> None:
    """Stop what `presswork up` has started, and nothing else.

    Flow runs that its worker has started are stopped as by Ctrl-C: what is in flight is waited for and recorded.
    """
    with reported_errors(as_json=as_json):
        from flows.control.shutdown import stop_services  # noqa: PLC0415 - see commands/__init__.py
        from flows.settings import load_settings  # noqa: PLC0415

        settings = load_settings()
        stopped = stop_services(settings.state_dir.resolve(), settings.stop_wait_s, _say)
        if as_json:
            screen.print_json({"stopped": stopped})
        else:
            screen.out().print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


def _say(text: str) -> None:
    screen.err().print(screen.data(text), soft_wrap=True)
    sys.stderr.flush()


def _announce(installation: Any, state: Any, names: list[str], seconds: float, *, as_json: bool) -> None:
    from flows.control.installation import SERVER, WORKER  # noqa: PLC0415 - see commands/__init__.py

    if as_json:
        pids = {service: getattr(state, service).pid for service in (SERVER, WORKER)}
        screen.print_json(
            {
                "ui": installation.url,
                "api": installation.api,
                "pool": POOL,
                "deployments": names,
                "pids": pids,
                "seconds": round(seconds, 1),
            }
        )
        return
    console = screen.out()
    console.print(f"It runs, after {seconds:.0f} s.\n")
    facts = [
        ("UI", installation.url),
        ("API", installation.api),
        ("worker", f"on the work pool {POOL}"),
        ("deployments", str(len(names))),
    ]
    if state.supervisor is None:
        facts.append(("logs", f"{installation.log(SERVER)}, {installation.log(WORKER)}"))
    screen.print_facts(console, facts, indent=2)
    screen.print_next(
        console,
        [
            (screen.command("status"), "what runs, what is next, what failed"),
            (screen.command("down"), "ends it"),
            (f"export PREFECT_API_URL={installation.api}", "lets Prefect's own command use it"),
        ],
    )
