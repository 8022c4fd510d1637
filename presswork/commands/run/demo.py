"""`presswork demo`: the whole way on sample records, with nothing configured and nothing asked."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.environment import environment
from presswork.terminal.flags import DemoFlags
from sandbox import Switches, sandbox_process


def demo(command: CommandContext, _flags: DemoFlags) -> int:
    """Run the flows of the samples, against a sandbox of the demo's own where no endpoint is configured."""
    _ = command.settings  # a wrong one is told before the sandbox starts
    with _endpoint(say=not command.as_json):
        from presswork.commands.run.demo_runs import run_all  # noqa: PLC0415 - loads Prefect; who answers is said first

        return run_all(command)


@contextmanager
def _endpoint(*, say: bool) -> Iterator[None]:
    """Use what is configured; where nothing is, a sandbox of the demo's own."""
    console = screen.err()
    if os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_BASE_URL"):
        if say:
            console.print("An endpoint is configured, and this demo uses it: it asks for what the ledger lacks.")
        yield
        return
    if say:
        console.print(
            Text("No ANTHROPIC_API_KEY is set, so the sandbox answers: ", "bold yellow").append(
                "a local Messages API whose texts are made up. Nothing is sent anywhere, nothing is billed.", "yellow"
            )
        )
    with sandbox_process(Switches(latency_ms=120, latency_spread=0.4)) as url, environment({"ANTHROPIC_BASE_URL": url}):
        yield
