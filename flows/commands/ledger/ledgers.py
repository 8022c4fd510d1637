"""Ledgers: which ledger a command reads, where it could be one of several.

A run knows its endpoint and so its ledger. A command that looks back reads what PRESSWORK_DATABASE_URL names, else the
file that is there; where both are, Claude's, unless the sandbox's is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from db.ledger.connecting import open_ledger
from db.session import readable_url
from db.words import ANTHROPIC, SANDBOX
from flows.commands.terminal import screen
from flows.engine.resources.source_urls import is_missing_file
from flows.errors import ConfigurationError
from flows.settings import ROOT, Settings, ledger_url


class NoLedgerError(ConfigurationError):
    """There is no ledger yet: `presswork demo` makes one, and so does the first `presswork run`."""


def ledger_urls(settings: Settings, *, sandbox: bool = False) -> list[str]:
    """Return the ledgers that are there, the one to read first; none where none has been made yet."""
    names = [SANDBOX] if sandbox else [ANTHROPIC, SANDBOX]
    urls = dict.fromkeys(ledger_url(settings, name) for name in names)
    return [url for url in urls if not is_missing_file(url)]


def chosen_url(settings: Settings, *, sandbox: bool = False) -> str:
    """Return the ledger to read; NoLedgerError where there is none."""
    urls = ledger_urls(settings, sandbox=sandbox)
    if not urls:
        raise NoLedgerError
    return urls[0]


@contextmanager
def ledger_to_read(settings: Settings, *, sandbox: bool = False) -> Iterator[Engine]:
    """Open the ledger to read; LedgerError says what is wrong with it, NoLedgerError that there is none."""
    engine = open_ledger(chosen_url(settings, sandbox=sandbox))
    try:
        yield engine
    finally:
        engine.dispose()


def ledger_name(url: str) -> str:
    """Call a ledger what people call it: the file's name, where it lies in the project's root."""
    shown = readable_url(url)
    return shown.removeprefix(f"sqlite:///{ROOT}/")


def say_ledger(url: str, *, others: bool) -> None:
    """Say on standard error which ledger is read, and how to read the other."""
    hint = " (`--sandbox` reads the sandbox's)" if others else ""
    screen.err().print(screen.data(f"Ledger: {ledger_name(url)}{hint}", "dim"))
