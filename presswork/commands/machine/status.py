"""`presswork status`: what is running, what is scheduled next, what failed last, and which models retire soon."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.text import Text

from db.machine import utc_now
from db.words import POOL
from presswork.catalog import ModelsByName
from presswork.commands.templates.retiring import NamedModels, Retiring, models_to_ask, retiring
from presswork.escaping import visible
from presswork.operate.command_server.retiring_server import KEPT_SERVER, KeptServer, kept_server
from presswork.operate.installation import AUDIT, SERVER, SUPERVISOR, WORKER, read_state
from presswork.operate.overview import Overview, ShownRun, read_overview
from presswork.report.amounts import counted
from presswork.settings import Settings
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_FAILED, CommandContext
from presswork.terminal.flags import StatusFlags
from presswork.terminal.quiet_prefect import known_api

LONGEST = 80  # characters of a message
SHOWN = 10


@dataclass(frozen=True)
class _Service:
    pid: int
    running: bool


@dataclass(frozen=True)
class _Status:
    """The status, also as JSON.

    `services` has None for a service that was never started here. `audit_error` says why the audit room, which nothing
    waits for, was not started. `kept` is the server that stayed after a command.
    """

    well: bool
    api: str | None
    services: Mapping[str, _Service | None]
    kept: KeptServer | None
    audit_error: str | None
    outlook: Overview | None
    models: Sequence[Retiring]


def begin_status(command: CommandContext, _flags: StatusFlags) -> NamedModels | int:
    """Return the models to ask the endpoint about; without an endpoint print the status at once."""
    return models_to_ask(command.settings.templates_dir) or show_status(command, {})


def show_status(command: CommandContext, reported: ModelsByName) -> int:
    """Read the status and print it; return EXIT_FAILED if the server or the worker is not well.

    `reported` is what the endpoint said about models.
    """
    found = _read(command.settings, reported)
    command.answer(asdict(found), lambda console: _print(console, found))
    return 0 if found.well else EXIT_FAILED


def _read(settings: Settings, reported: ModelsByName) -> _Status:
    home = settings.state_dir.resolve()
    state, kept = read_state(home), kept_server(home)
    services = {
        name: _Service(process.pid, process.is_alive) if process else None
        for name in (SERVER, WORKER, AUDIT, SUPERVISOR)
        for process in [getattr(state, name, None)]
    }
    audit_error = None if state is None else state.audit_error
    models = retiring(settings.templates_dir, reported, utc_now().date())
    with known_api(settings) as api:
        if api is None:
            nothing: dict[str, None] = {"api": None, "outlook": None}
            return _Status(well=False, services=services, kept=kept, audit_error=audit_error, models=models, **nothing)
        overview = asyncio.run(read_overview(POOL, utc_now()))
    if state is not None and state.api == api:
        well = all(service and service.running for service in (services[SERVER], services[WORKER]))
    else:
        well = any(worker.online for worker in overview.workers)
    return _Status(well, api, services, kept, audit_error, overview, models)


def _print(console: Console, found: _Status) -> None:
    _print_services(console, found)
    for model in found.models:
        named = f" Used by {', '.join(model.templates)}. Move to another model."
        console.print(Text(f"\n{visible(model.words)}.{visible(named)}", "yellow"))


def _print_services(console: Console, found: _Status) -> None:
    started = {name: service for name, service in found.services.items() if service}
    if found.kept is not None:
        console.print(Text("✔ ", "green").append(_kept(found.kept), "default"))
    if found.api is None and not started:
        nothing = "Nothing" if found.kept is None else "Nothing else"
        console.print(f"{nothing} runs here. Start Prefect's server and a worker with `presswork up`.")
        return
    for name, service in started.items():
        mark, style, how = ("✔", "green", "runs") if service.running else ("✘", "red", "has ended")
        console.print(Text(f"{mark} ", style).append(f"{name} {how} (process {service.pid})", "default"))
    if found.audit_error is not None:
        console.print(Text("✘ ", "red").append(f"{AUDIT} does not run. {found.audit_error}", "default"))
    if not all(service.running for service in started.values()):
        is_supervised = SUPERVISOR in started and started[SUPERVISOR].running
        remedy = (
            "The supervisor restarts it."
            if is_supervised
            else "`presswork up` restarts it, `presswork down` stops all."
        )
        console.print(remedy)
    if found.outlook is None:
        return
    outlook = found.outlook
    console.print(Text(f"\nAPI {found.api}, {counted(outlook.deployments, 'deployment')}", "dim"))
    if not any(worker.online for worker in outlook.workers):
        console.print("No worker is online, so scheduled runs wait.", style="yellow")
    if outlook.pool_paused:
        console.print("The work pool is paused, so scheduled runs wait.", style="yellow")
    for title, when in (("running", "since"), ("waiting", "since"), ("next", "at"), ("failed", "at")):
        _print_runs(console, title, when, getattr(outlook, title))


def _kept(server: KeptServer) -> str:
    ends = "is used by a command" if server.until is None else f"ends at {screen.moment(server.until)} (UTC)"
    return f"{KEPT_SERVER} after a command {ends} (process {server.pid}); `presswork down` stops it"


def _print_runs(console: Console, title: str, when: str, runs: Sequence[ShownRun]) -> None:
    console.print()
    if not runs:
        console.print(Text(f"{title}: none", "dim"))
        return
    rows = []
    for run in runs[:SHOWN]:
        message = screen.one_line(run.message or "", LONGEST) if title == "failed" else ""
        cells = (run.name, run.state, screen.moment(run.at), run.deployment or "by hand", screen.data(message, "dim"))
        rows.append(cells)
    console.print(screen.table([title, "state", f"{when} (UTC)", "deployment", ""], rows))
    if len(runs) > SHOWN:
        console.print(Text(f"and {len(runs) - SHOWN} more", "dim"))
