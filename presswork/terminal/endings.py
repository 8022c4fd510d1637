"""End a command: an error becomes one message that says what to do, and an exit status.

0 all records have content; 1 some have not, or something failed that nobody foresaw; 2 the call, the configuration, the
key, the account or a gateway's budget is wrong; 3 the cost cap stopped the run; 130 Ctrl-C did.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from db.database_errors import DatabaseError
from presswork.errors import CallError, PressworkError, StoppedError
from presswork.settings import Settings, load_settings
from presswork.terminal import screen
from presswork.terminal.environment import prepare_environment

EXIT_FAILED, EXIT_WRONG, EXIT_STOPPED = 1, 2, 130
STOPPED_KIND = "stopped"
DEBUG = "PRESSWORK_DEBUG"
MASKED = r"\1:***@"
_PASSWORD = re.compile(r"(\w+://[^\s:/@]*):[^\s@/]+@")


@dataclass
class CommandContext:
    """What a command works with, and how it answers; `run_id` is set when a run has opened."""

    as_json: bool
    run_id: str | None = None

    @cached_property
    def settings(self) -> Settings:
        """The installation's settings, read when they are first asked for."""
        return load_settings()

    def answer(self, value: Any, show: Callable[[Console], None]) -> None:
        """Give the answer: `value` as JSON to programs, what `show` prints to people."""
        if self.as_json:
            screen.print_json(value)
        else:
            show(screen.out())

    def fail(self, message: str, kind: str) -> None:
        """Say what went wrong, to programs as {"error", "kind", "run_id"} too."""
        if self.as_json:
            screen.print_json({"error": message, "kind": kind, "run_id": self.run_id})
        console = screen.err()
        text = Text("" if kind == STOPPED_KIND else "Error: ", "bold red")
        console.print(text.append_text(screen.data(message)), soft_wrap=not console.is_terminal)
        sys.stderr.flush()


@contextmanager
def command_context(*, as_json: bool) -> Iterator[CommandContext]:
    """Yield what a command works with; turn whatever goes wrong into a message on standard error and an exit status."""
    command = CommandContext(as_json)
    try:
        prepare_environment()
        yield command
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        command.fail("Stopped by Ctrl-C.", STOPPED_KIND)
        raise typer.Exit(EXIT_STOPPED) from None
    except Exception as error:  # noqa: BLE001 - the boundary of one command: no traceback is for a user
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
        faults = (f"{name} {screen.visible(repr(given))}: {reason}" for name, given, reason in faults_of(error))
        return EXIT_WRONG, "Parameter", "; ".join(faults) + "."
    from db.session import reason_of  # noqa: PLC0415 - loads SQLAlchemy, for a last word

    # Not a driver's own words: they quote rows.
    what = type(error).__name__ + (f": {reason_of(error, '')}" if str(error).strip() else "")
    remedy = "" if os.environ.get(DEBUG) else f" Run with {DEBUG}=1 for the traceback."
    told = f"Presswork did not foresee this: {_PASSWORD.sub(MASKED, what)}.{remedy}"
    return EXIT_FAILED, "Unexpected", told.replace("..", ".")


def faults_of(error: ValidationError) -> Iterator[tuple[str, Any, str]]:
    """Yield each value that is wrong: its name, what was given, and why it is wrong."""
    for item in error.errors(include_url=False):
        reason = item["msg"].removeprefix("Value error, ").replace("Input should be", "it must be", 1)
        yield ".".join(map(str, item["loc"])), item["input"], reason
