"""`presswork status`: what is running, what is scheduled next, what failed last, and which models retire soon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from db.words import POOL
from flows.commands.terminal import screen
from flows.commands.terminal.endings import FAILED, reported_errors
from flows.commands.terminal.flags import AsJson
from flows.engine.report.amounts import counted

LONGEST = 80  # characters of a message
SHOWN = 10


def status(as_json: AsJson = False) -> None:
    """Say what is running, what is scheduled next, what failed last, and which models retire soon.

    Exit status: 0 server and worker are well, 1 one of them is not, or neither was started.
    """
    with reported_errors(as_json=as_json):
        from flows.commands.templates.retiring import retiring  # noqa: PLC0415 - see commands/__init__.py
        from flows.settings import load_settings  # noqa: PLC0415 - as above

        settings = load_settings()
        found = _find(settings)
        found["models"] = [asdict(model) for model in retiring(settings, datetime.now(UTC).date())]
        if as_json:
            screen.print_json(found)
        else:
            _print(screen.out(), found)
        raise typer.Exit(0 if found["well"] else FAILED)


def _find(settings: Any) -> dict[str, Any]:
    from flows.commands.terminal.quiet_prefect import hush, known_api  # noqa: PLC0415 - see commands/__init__.py
    from flows.control.installation import SERVER, SUPERVISOR, WORKER, read_state  # noqa: PLC0415

    hush()
    state = read_state(settings.state_dir.resolve())
    services = {
        name: {"pid": process.pid, "running": process.is_alive} if process else None
        for name in (SERVER, WORKER, SUPERVISOR)
        for process in [getattr(state, name, None)]
    }
    found: dict[str, Any] = {"well": False, "api": None, "services": services, "outlook": None}
    with known_api(settings) as api:
        if api is None:
            return found
        from flows.control.overview import read_overview  # noqa: PLC0415 - loads Prefect

        outlook = asyncio.run(read_overview(POOL, datetime.now(UTC)))
    is_ours = state is not None and state.api == api
    works = all(service and service["running"] for service in (services[SERVER], services[WORKER]))
    well = works if is_ours else any(worker.online for worker in outlook.workers)
    return {**found, "well": well, "api": api, "outlook": asdict(outlook)}


def _print(console: Console, found: dict[str, Any]) -> None:
    _print_services(console, found)
    for model in found["models"]:
        named = f" It is named by {', '.join(model['templates'])}: move to another model."
        console.print(Text(f"\n{screen.visible(model['words'])}.{screen.visible(named)}", "yellow"))


def _print_services(console: Console, found: dict[str, Any]) -> None:
    started = {name: service for name, service in found["services"].items() if service}
    if found["api"] is None and not started:
        console.print("Nothing runs here: `presswork up` starts Prefect's server and a worker.")
        return
    for name, service in started.items():
        mark, style, how = ("✔", "green", "runs") if service["running"] else ("✘", "red", "has ended")
        console.print(Text(f"{mark} ", style).append(f"{name} {how} (process {service['pid']})", "default"))
    if not all(service["running"] for service in started.values()):
        console.print("`presswork up` starts again what has ended, `presswork down` ends the rest.")
    if found["outlook"] is None:
        return
    outlook = found["outlook"]
    console.print(Text(f"\nAPI {found['api']}, {counted(outlook['deployments'], 'deployment')}", "dim"))
    if not any(worker["online"] for worker in outlook["workers"]):
        console.print("No worker is heard of just now: what is scheduled waits.", style="yellow")
    if outlook["pool_paused"]:
        console.print("The work pool is paused: what is scheduled waits.", style="yellow")
    for title, when in (("running", "since"), ("waiting", "since"), ("next", "at"), ("failed", "at")):
        _print_runs(console, title, when, outlook[title])


def _print_runs(console: Console, title: str, when: str, runs: Sequence[dict[str, Any]]) -> None:
    console.print()
    if not runs:
        console.print(Text(f"{title}: none", "dim"))
        return
    made = screen.table(title, "state", f"{when} (UTC)", "deployment", "")
    for run in runs[:SHOWN]:
        message = screen.one_line(run["message"] or "", LONGEST) if title == "failed" else ""
        made.add_row(
            screen.data(run["name"]),
            screen.data(run["state"]),
            screen.moment(run["at"]),
            screen.data(run["deployment"] or "by hand"),
            screen.data(message, "dim"),
        )
    console.print(made)
    if len(runs) > SHOWN:
        console.print(Text(f"and {len(runs) - SHOWN} more", "dim"))
