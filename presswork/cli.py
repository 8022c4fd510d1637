"""The command `presswork`: the table of its commands, each with its flags and the functions that do its work.

Help and mistakes of typing need only the flags in presswork/terminal/. The modules in presswork/commands/ are
imported when their command is called.
"""

import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer

from db.words import PROGRAM
from presswork.terminal import audit_flags, flags, ledger_flags

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
ledger = typer.Typer(help="Create, migrate, check and shrink the ledger.", no_args_is_help=True)
audit = typer.Typer()
OF_GROUP = ""
"""The name of a command that is its group itself: `presswork audit`."""
COMMANDS: tuple[tuple[typer.Typer, str, type[flags.Flags], str], ...] = (
    (app, "demo", flags.DemoFlags, "run.demo:begin_demo -> run.demo_runs:run_demo"),
    (
        app,
        "run",
        flags.RunFlags,
        "run.run_command:name_run -> run.checked_run:check_run -> run.running:run_to_end",
    ),
    (app, "rehearse", flags.RehearseFlags, "run.rehearse:begin_rehearsal -> run.rehearsing:run_rehearsal"),
    (app, "deploy", flags.DeployFlags, "machine.deploy:deploy"),
    (app, "history", audit_flags.HistoryFlags, "ledger.history:show_history"),
    (app, "show", audit_flags.ShowFlags, "ledger.show:show_generation"),
    (app, "diff", audit_flags.DiffFlags, "ledger.diff:show_difference"),
    (app, "cost", audit_flags.CostFlags, "audit.cost:show_cost"),
    (app, "search", audit_flags.SearchFlags, "audit.searching:search_answers"),
    (app, "export", audit_flags.ExportFlags, "audit.export:export_generations"),
    (app, "up", flags.UpFlags, "machine.up:up"),
    (
        app,
        "status",
        flags.StatusFlags,
        "machine.status:begin_status -> templates.asking:ask_at_once -> machine.status:show_status",
    ),
    (app, "down", flags.DownFlags, "machine.down:down"),
    (app, "sandbox", flags.SandboxFlags, "machine.serve_sandbox:sandbox"),
    (audit, OF_GROUP, audit_flags.AuditFlags, "audit.serve_audit:serve_audit"),
    (audit, "index", audit_flags.IndexFlags, "audit.word_index:index_words"),
    (audit, "bundle", audit_flags.BundleFlags, "audit.bundle:write_bundle"),
    (templates, "list", flags.TemplatesFlags, "templates.template_list:show_templates"),
    (templates, "lint", flags.LintFlags, "templates.linting:lint -> templates.asking:lint_online"),
    (templates, "show", flags.RequestFlags, "templates.shown_request:show_request"),
    (templates, "try", flags.TryFlags, "trying.try_template:check_template -> trying.try_trials:try_template"),
    (
        templates,
        "history",
        audit_flags.TemplateHistoryFlags,
        "templates.template_history:show_template_history",
    ),
    (ledger, "upgrade", ledger_flags.UpgradeFlags, "ledger.ledger_commands:upgrade_ledger"),
    (ledger, "check", ledger_flags.CheckFlags, "ledger.ledger_commands:require_current"),
    (ledger, "recover", ledger_flags.RecoverFlags, "ledger.ledger_commands:recover_spills"),
    (ledger, "size", ledger_flags.SizeFlags, "ledger.room:show_size"),
    (ledger, "compact", ledger_flags.CompactFlags, "ledger.room:compact_ledger"),
    (ledger, "prune", ledger_flags.PruneFlags, "ledger.room:prune_ledger"),
    (ledger, "rebuild", ledger_flags.RebuildFlags, "ledger.room:rebuild_content"),
)
"""Each command: its group, its name, its flags, and the functions in presswork/commands/ that do its work.

Every function takes the CommandContext and what the one before returned; the first takes the flags. An int is the exit
status and ends the command. A later function is in a module that loads more slowly, for example because it imports
Prefect, so that mistakes are reported first.
"""


def _command(taken: type[flags.Flags], work: str) -> Callable[..., None]:
    """Make a command whose flags are the fields of a class, and whose work is imported when it is called."""

    def call(**given: Any) -> None:
        passed: Any = taken(**given)
        with _load("presswork.terminal.endings:command_context")(as_json=passed.as_json) as command:
            for function in work.split(" -> "):
                passed = _load(f"presswork.commands.{function}")(command, passed)
                if isinstance(passed, int):
                    break
        raise typer.Exit(passed or 0)

    # Typer reads a command's flags and help from these.
    call.__signature__ = inspect.signature(taken, eval_str=True)  # type: ignore[attr-defined]
    call.__doc__ = taken.__doc__
    return call


def _command_of_group(taken: type[flags.Flags], work: str) -> Callable[..., None]:
    """Make a command that is a group without a subcommand. With one, its own flags would be ignored: refuse them."""
    command = _command(taken, work)

    def call(context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            command(**given)
        elif taken(**given) != taken():
            context.fail(f"Give the options of '{context.invoked_subcommand}' after its name.")

    mine = inspect.signature(call).parameters["context"]
    theirs = inspect.signature(command)
    call.__signature__ = theirs.replace(parameters=[mine, *theirs.parameters.values()])  # type: ignore[attr-defined]
    call.__doc__ = command.__doc__
    return call


def _load(function: str) -> Any:
    """Import a function, named as "package.module:function"."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


for group, name, taken, work in COMMANDS:
    if name == OF_GROUP:
        group.callback(invoke_without_command=True)(_command_of_group(taken, work))
    else:
        group.command(name)(_command(taken, work))
app.add_typer(templates, name="templates")
app.add_typer(ledger, name="db")
app.add_typer(audit, name="audit")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 - loads the parser of e-mails, for this option alone

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def presswork(
    asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Turn database records into validated content, and see in SQL what was generated and what it cost."""


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Collect garbage seldom while modules load, and not at all when the command ends.

    Loading makes half a million objects that stay. Visiting them again and again takes half of the CPU of
    `import prefect, anthropic`: 2.4 s with Python's defaults, 1.3 s like this.
    """
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.freeze()


def main() -> None:
    """Run the command. Errors end as messages, see presswork/terminal/endings.py."""
    for stream in (sys.stdout, sys.stderr):
        # A record may hold characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _seldom_collected():
            app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
