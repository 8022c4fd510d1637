"""`presswork up`: start the services of one machine, in the background or supervised by this process."""

from rich.console import Console

from db.machine import monotonic_s
from db.words import POOL
from presswork.operate.installation import AUDIT, SERVER, SUPERVISOR, WORKER, Installation, State
from presswork.operate.services import foreground_services, read_installation, start_services
from presswork.operate.supervisor import ServiceError
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_FAILED, CommandContext
from presswork.terminal.flags import UpFlags


def up(command: CommandContext, flags: UpFlags) -> int:
    """Start the services; with `--foreground` supervise them, and return EXIT_FAILED if one ends too often."""
    here = read_installation(command.settings)
    began = monotonic_s()
    if not flags.foreground:
        state, names = start_services(here, screen.say)
        logs = ", ".join(str(here.log(service)) for service in (SERVER, WORKER, AUDIT, SUPERVISOR))
        _answer(command, here, state, names, monotonic_s() - began, [("logs", logs)])
        return 0
    with foreground_services(here, screen.say) as (supervisor, names):
        _answer(command, here, supervisor.state, names, monotonic_s() - began, [])
        try:
            supervisor.watch()
        except ServiceError as error:
            screen.say(str(error))
            return EXIT_FAILED


def _answer(
    command: CommandContext,
    here: Installation,
    state: State,
    names: list[str],
    seconds: float,
    logs: list[tuple[str, str]],
) -> None:
    audit = state.audit_url if state.living(AUDIT) else None

    def show(console: Console) -> None:
        console.print(f"It runs, after {seconds:.0f} s.\n")
        worker, deployments = ("worker", f"on the work pool {POOL}"), ("deployments", str(len(names)))
        room = ("audit room", audit or ("none" if not here.audit_port else f"does not run; see {here.log(SUPERVISOR)}"))
        screen.print_facts(console, [("UI", here.url), ("API", here.api), room, worker, deployments, *logs], indent=2)
        lines = [
            (screen.command("status"), "what runs, what is next, what failed"),
            (screen.command("down"), "stops it"),
            (f"export PREFECT_API_URL={here.api}", "lets Prefect's own command use it"),
        ]
        screen.print_next(console, lines)

    answer = {
        "ui": here.url,
        "api": here.api,
        "audit": audit,
        "pool": POOL,
        "deployments": names,
        "pids": {service: process.pid for service in (SERVER, WORKER, AUDIT) if (process := state.living(service))},
        "seconds": round(seconds, 1),
    }
    command.answer(answer, show)
