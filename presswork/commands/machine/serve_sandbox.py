"""`presswork sandbox`: serve the local Messages API on loopback, until Ctrl-C."""

import asyncio

from rich.console import Console

from presswork.errors import ConfigurationError
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import SandboxFlags
from sandbox import Switches, serve
from sandbox.__main__ import read_switch


def sandbox(command: CommandContext, flags: SandboxFlags) -> None:
    """Serve until Ctrl-C; the URL is printed as soon as it listens."""
    try:
        chosen = Switches().changed(dict(read_switch(text) for text in flags.switches or []))
    except ValueError as error:
        raise ConfigurationError(f"{error}. Available: {', '.join(Switches.model_fields)}.") from None

    def announce(url: str) -> None:
        command.answer({"url": url, "switches": chosen.model_dump()}, lambda console: _print(console, url))

    try:
        asyncio.run(serve(flags.port, chosen, announce))
    except OSError as error:
        raise ConfigurationError(
            f"Port {flags.port} can't be used: {error.strerror or error}. Set another with --port, or 0 for any free "
            "one."
        ) from None


def _print(console: Console, url: str) -> None:
    console.print(f"The sandbox answers at {url}. It invents its answers, and nothing is billed. In another shell:\n")
    console.print(f"  export ANTHROPIC_BASE_URL={url}", style="cyan")
    console.print("  presswork run product_copy\n", style="cyan")
    console.print(f"Its counts are at {url}/sandbox/stats. Ctrl-C stops it.")
