"""`presswork demo`: the main flows on sample records, without any configuration."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from presswork.commands.run.begun_server import beginning, command_server
from presswork.operate.command_server.server_context import CommandServer
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.environment import environment
from presswork.terminal.flags import DemoFlags
from sandbox import Switches, sandbox_process


def begin_demo(command: CommandContext, _flags: DemoFlags) -> CommandServer:
    """Say which endpoint answers the demo; start a sandbox for it if none is configured, and Prefect's server."""
    settings = command.settings  # a wrong setting is reported before anything starts
    server = command.hold(command_server(command))
    beginning(server, settings)()
    command.hold(_endpoint(say=not command.as_json))
    return server


@contextmanager
def _endpoint(*, say: bool) -> Iterator[None]:
    """Use the endpoint that is configured, else a sandbox that lasts as long as the block."""
    console = screen.err()
    if os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_BASE_URL"):
        if say:
            console.print("An endpoint is configured. The demo sends it a request for each text that the ledger lacks.")
        yield
        return
    if say:
        console.print(
            Text("No ANTHROPIC_API_KEY is set, so the sandbox answers: ", "bold yellow").append(
                "a local Messages API that makes up its texts. Nothing leaves this machine, nothing is billed.",
                "yellow",
            )
        )
    with sandbox_process(Switches(latency_ms=120, latency_spread=0.4)) as url, environment({"ANTHROPIC_BASE_URL": url}):
        yield
