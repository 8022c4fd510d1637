"""`presswork down`: stop the services of one machine. Apart from up.py, because it needs no Prefect."""

from presswork.operate.installation import stop_services
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import DownFlags


def down(command: CommandContext, _flags: DownFlags) -> None:
    """Stop the services, and report which."""
    settings = command.settings
    stopped = stop_services(settings.state_dir.resolve(), settings.stop_wait_s, screen.say)
    words = f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running."
    command.answer({"stopped": stopped}, lambda console: console.print(words))
