"""Set environment variables for this process and its children, for as long as a block lasts."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from presswork.settings import load_environment

QUIET_PREFECT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_CLI_PROMPT": "false",
}


def prepare_environment() -> None:
    """Read `.env`, and keep Prefect's log off the screen. Call it before Prefect is imported."""
    load_environment()
    for name, value in QUIET_PREFECT.items():
        os.environ.setdefault(name, value)


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or remove those whose value is None, and restore them at the end of the block."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
