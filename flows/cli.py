"""The command `presswork`: what people type, put together from flows/commands/, one file a command."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from flows.commands.ledger import ledger_commands as ledger
from flows.commands.ledger.history import history
from flows.commands.ledger.show import show
from flows.commands.machine.deploy import deploy
from flows.commands.machine.serve_sandbox import sandbox
from flows.commands.machine.status import status
from flows.commands.machine.up import down, up
from flows.commands.rehearsal.rehearse import rehearse
from flows.commands.run.demo import demo
from flows.commands.run.run_command import run
from flows.commands.templates import template_commands as templates

app = typer.Typer(
    name="presswork",
    help="Turns database records into validated content: select, render, complete, validate, record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, run, rehearse, deploy, history, show, up, status, down, sandbox):
    app.command()(command)
app.add_typer(templates.app, name="templates")
app.add_typer(ledger.app, name="db")


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"presswork {version('presswork')}")
        raise typer.Exit


@app.callback()
def presswork(
    asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Turn database records into validated content, and see in SQL what was generated and what it cost."""


def main() -> None:
    """Run the command; no traceback reaches a user (see commands/terminal/endings.py)."""
    for stream in (sys.stdout, sys.stderr):
        # A record may hold what the terminal's encoding does not.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
