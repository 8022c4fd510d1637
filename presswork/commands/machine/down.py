"""`presswork down`: stop the services of one machine. Apart from up.py, because it needs no Prefect."""

from presswork.operate.command_server.retiring_server import KEPT_SERVER, retire_server
from presswork.operate.installation import stop_services
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import DownFlags


def down(command: CommandContext, _flags: DownFlags) -> None:
    """Stop the services, and the server that stayed after a command; report which."""
    settings = command.settings
    home = settings.state_dir.resolve()
    stopped = stop_services(home, settings.stop_wait_s, screen.say)
    was_stopped, note = retire_server(home)
    if was_stopped:
        stopped.append(KEPT_SERVER)
    if note:
        screen.say(note)
    words = f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running." if note is None else ""
    command.answer({"stopped": stopped}, lambda console: console.print(words) if words else None)
