"""Start the server of a command before Prefect is loaded: this takes as long, and both go on side by side."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from presswork.operate.command_server.held_server import plan_server
from presswork.operate.command_server.server_context import CommandServer
from presswork.operate.installation import SERVER, read_state
from presswork.settings import ROOT, Settings
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext

STAYS = (
    "Prefect's server stays for the next command, and ends after {:.0f} minutes without one; `presswork down` stops it."
)
API_URL = "PREFECT_API_URL"


@contextmanager
def command_server(command: CommandContext) -> Iterator[CommandServer]:
    """Yield the server of this command, which is not started yet; if it was and stays, say so at the end."""
    with CommandServer(plan_server(command.settings)) as server:
        try:
            yield server
        finally:
            if server.is_starting and server.stays_s and not command.as_json:
                screen.say(STAYS.format(server.stays_s / 60))


def beginning(server: CommandServer, settings: Settings) -> Callable[[], None]:
    """Return what starts the server at once, if it is certain that no other one will be used."""

    def begin() -> None:
        if not _may_be_configured(settings):
            server.begin()

    return begin


def _may_be_configured(settings: Settings) -> bool:
    """Whether another server is there, or Prefect's settings may name one. Only Prefect itself knows for certain."""
    state = read_state(settings.state_dir.resolve())
    if os.environ.get(API_URL) or (state is not None and state.living(SERVER)):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    here = (Path(), ROOT)
    return (
        _mentions(profiles, API_URL)
        or any(_mentions(folder / ".env", API_URL) or (folder / "prefect.toml").exists() for folder in here)
        or any(_mentions(folder / "pyproject.toml", "[tool.prefect") for folder in here)
    )


def _mentions(file: Path, words: str) -> bool:
    try:
        return words in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
