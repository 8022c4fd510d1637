"""The command `presswork`: which commands there are, and where each does its work (presswork/commands/)."""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer

from db.words import PROGRAM
from presswork.terminal import flags

app = typer.Typer(
    name=PROGRAM,
    help="Turns database records into validated content: select, render, complete, validate, record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
templates = typer.Typer(help="List, check and try the prompt files in templates/.", no_args_is_help=True)
ledger = typer.Typer(help="Make, migrate, check and shrink the ledger.", no_args_is_help=True)
COMMANDS: tuple[tuple[typer.Typer, str, type[flags.Flags], str], ...] = (
    (app, "demo", flags.DemoFlags, "run.demo:demo"),
    (app, "run", flags.RunFlags, "run.run_command:run"),
    (app, "rehearse", flags.RehearseFlags, "run.rehearse:rehearse"),
    (app, "deploy", flags.DeployFlags, "machine.deploy:deploy"),
    (app, "history", flags.HistoryFlags, "ledger.history:history"),
    (app, "show", flags.ShowFlags, "ledger.show:show"),
    (app, "up", flags.UpFlags, "machine.up:up"),
    (app, "status", flags.StatusFlags, "machine.status:status"),
    (app, "down", flags.DownFlags, "machine.down:down"),
    (app, "sandbox", flags.SandboxFlags, "machine.serve_sandbox:sandbox"),
    (templates, "list", flags.TemplatesFlags, "templates.template_commands:list_"),
    (templates, "lint", flags.LintFlags, "templates.template_commands:lint"),
    (templates, "show", flags.RequestFlags, "templates.trying:show"),
    (ledger, "upgrade", flags.UpgradeFlags, "ledger.ledger_commands:upgrade"),
    (ledger, "check", flags.CheckFlags, "ledger.ledger_commands:check"),
    (ledger, "recover", flags.RecoverFlags, "ledger.ledger_commands:recover"),
    (ledger, "size", flags.SizeFlags, "ledger.room:size"),
    (ledger, "compact", flags.CompactFlags, "ledger.room:compact"),
    (ledger, "prune", flags.PruneFlags, "ledger.room:prune"),
    (ledger, "rebuild", flags.RebuildFlags, "ledger.room:rebuild"),
)
"""Each command: its group, its name, what it takes, and the function of presswork/commands/ that does its work."""


def _command(taken: type[flags.Flags], work: str) -> Callable[..., None]:
    """Make the command that takes the fields of a class as its flags, and loads the module of its work when called."""

    def call(**given: Any) -> None:
        from presswork.terminal.endings import command_context  # noqa: PLC0415 - no help need wait for pydantic

        asked = taken(**given)
        with command_context(as_json=asked.as_json) as command:
            module, _, function = work.partition(":")
            status = getattr(import_module(f"presswork.commands.{module}"), function)(command, asked)
        raise typer.Exit(status or 0)

    # Typer finds a command's flags and its help by these.
    call.__signature__ = inspect.signature(taken, eval_str=True)  # type: ignore[attr-defined]
    call.__doc__ = taken.__doc__
    return call


for group, name, taken, work in COMMANDS:
    group.command(name)(_command(taken, work))
app.add_typer(templates, name="templates")
app.add_typer(ledger, name="db")


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
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
