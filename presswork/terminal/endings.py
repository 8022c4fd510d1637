"""End a command: turn an error into an exit status and one message that says what to do.

0 all records have content; 1 some have not, or an unexpected error; 2 the call, the configuration, the key, the account
or a gateway's budget is wrong; 3 the cost cap stopped the run; 130 Ctrl-C stopped it.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from db.database_errors import DatabaseError
from presswork.errors import CallError, PressworkError, StoppedError
from presswork.escaping import visible
from presswork.settings import Settings, load_settings
from presswork.terminal import screen
from presswork.terminal.environment import prepare_environment

EXIT_FAILED, EXIT_WRONG, EXIT_STOPPED = 1, 2, 130
STOPPED_KIND = "stopped"
DEBUG = "PRESSWORK_DEBUG"
MASKED = r"\1:***@"
Held = TypeVar("Held")
_PASSWORD = re.compile(r"(\w+://[^\s:/@]*):[^\s@/]+@")


@dataclass
class CommandContext:
    """The settings and the output of a command; `run_id` is set when a run has opened."""

    as_json: bool
    run_id: str | None = None
    until_end: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def settings(self) -> Settings:
        """The installation's settings, read at the first access."""
        return load_settings()

    def hold(self, context: AbstractContextManager[Held]) -> Held:
        """Enter a context that lasts until the command ends, and return its value."""
        return self.until_end.enter_context(context)

    def answer(self, value: Any, show: Callable[[Console], None]) -> None:
        """Answer programs with `value` as JSON, people with what `show` prints."""
        if self.as_json:
            screen.print_json(value)
        else:
            show(screen.out())

    def fail(self, message: str, kind: str, **done: Any) -> None:
        """Print an error; with --json also print {"error", "kind", "run_id"} as the answer, with what is `done`."""
        if self.as_json:
            screen.print_json({"error": message, "kind": kind, "run_id": self.run_id, **done})
        console = screen.err()
        text = Text("" if kind == STOPPED_KIND else "Error: ", "bold red")
        console.print(text.append_text(screen.data(message)), soft_wrap=not console.is_terminal)
        sys.stderr.flush()


@contextmanager
def command_context(*, as_json: bool) -> Iterator[CommandContext]:
    """Yield a command's context; turn any error into a message on standard error and an exit status."""
    command = CommandContext(as_json)
    try:
        prepare_environment()
        with command.until_end:
            yield command
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        command.fail("Stopped by Ctrl-C.", STOPPED_KIND)
        raise typer.Exit(EXIT_STOPPED) from None
    except Exception as error:  # noqa: BLE001 - the boundary of one command: users see no traceback
        if os.environ.get(DEBUG):
            traceback.print_exc()
        status, kind, message = describe(error)
        command.fail(message, kind)
        raise typer.Exit(status) from None


def describe(error: Exception) -> tuple[int, str, str]:
    """Return the exit status, the kind and the message of an error."""
    if isinstance(error, StoppedError):
        return EXIT_STOPPED, STOPPED_KIND, str(error)
    kind = type(error).__name__.removesuffix("Error")
    if isinstance(error, CallError):
        return EXIT_WRONG, error.kind, str(error)
    if isinstance(error, PressworkError | DatabaseError):
        return EXIT_WRONG, kind, str(error)
    if isinstance(error, ValidationError):
        faults = (f"{name} {visible(repr(given))}: {reason}" for name, given, reason in faults_of(error))
        return EXIT_WRONG, "Parameter", "; ".join(faults) + "."
    if _is_damage(error):
        return EXIT_WRONG, "LedgerDamaged", f"The ledger is damaged: {_reason_of(error)}. Restore the newest backup."
    what = type(error).__name__ + (f": {_reason_of(error)}" if str(error).strip() else "")
    remedy = "" if os.environ.get(DEBUG) else f" Run with {DEBUG}=1 for the traceback."
    message = f"Presswork met an unexpected error: {_PASSWORD.sub(MASKED, what)}.{remedy}"
    return EXIT_FAILED, "Unexpected", message.replace("..", ".")


def _is_damage(error: Exception) -> bool:
    session = _session()
    return session is not None and bool(session.is_damaged(error))


def _session() -> Any:
    # db.session is loaded whenever a database was used. An import here would make every command wait for SQLAlchemy.
    return sys.modules.get("db.session")


def _reason_of(error: Exception) -> str:
    """Say in one line why an unexpected error was raised."""
    # A driver's own words quote rows; db.session removes these.
    session = _session()
    return session.reason_of(error, "") if session else str(error).strip().splitlines()[0].rstrip(".")


def faults_of(error: ValidationError) -> Iterator[tuple[str, Any, str]]:
    """Yield each wrong value: its name, the value, and why it is wrong."""
    for item in error.errors(include_url=False):
        reason = item["msg"].removeprefix("Value error, ").replace("Input should be", "it must be", 1)
        yield ".".join(map(str, item["loc"])), item["input"], reason
