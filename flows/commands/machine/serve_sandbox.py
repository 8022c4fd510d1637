"""`presswork sandbox`: the local Messages API, on loopback, until Ctrl-C."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from flows.commands.terminal.endings import command_context
from flows.commands.terminal.flags import AsJson
from flows.errors import ConfigurationError

PORT = 8765


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes any free one.")] = PORT,
    switches: Annotated[
        list[str] | None,
        typer.Option(
            "--switch",
            metavar="NAME=VALUE",
            help="What it simulates, such as latency_ms=350, rpm=1000, overloaded=0.02; may be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the sandbox: a local Messages API that costs nothing.

    Its answers are made up by the JSON schema of each request; it listens on loopback only.
    """
    with command_context(as_json=as_json) as command:
        from flows.sandbox import Switches, serve  # noqa: PLC0415 - see commands/__init__.py
        from flows.sandbox.__main__ import read_switch  # noqa: PLC0415

        try:
            chosen = Switches().changed(dict(read_switch(text) for text in switches or []))
        except ValueError as error:
            raise ConfigurationError(f"{error}. The switches are: {', '.join(Switches.model_fields)}.") from None

        def announce(url: str) -> None:
            command.answer({"url": url, "switches": chosen.model_dump()}, lambda console: _print(console, url))

        try:
            asyncio.run(serve(port, chosen, announce))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} can't be used: {error.strerror or error}. Name another with --port; 0 takes any free one."
            ) from None


def _print(console: Console, url: str) -> None:
    console.print(f"The sandbox answers at {url}. Its answers are made up, and nothing is billed. In another shell:\n")
    console.print(f"  export ANTHROPIC_BASE_URL={url}", style="cyan")
    console.print("  presswork run product_copy\n", style="cyan")
    console.print(f"It keeps count at {url}/sandbox/stats. Ctrl-C ends it.")
