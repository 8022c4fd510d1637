"""Say which ledger a command reads, where it could be one of several.

A run knows its endpoint and so its ledger. A command that looks back reads what PRESSWORK_DATABASE_URL names, else the
file that is there; where both are, Claude's, unless the sandbox's is asked for.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from sqlalchemy import Engine

from db.ledger.connecting import open_ledger
from db.session import readable_url
from db.sources.access import is_missing_file
from db.words import ANTHROPIC, SANDBOX
from presswork.errors import ConfigurationError
from presswork.settings import ROOT, Settings, ledger_url
from presswork.terminal import screen

Found = TypeVar("Found")
_HAVE_IDS = {
    "run": "`presswork history` lists them; a record's life is shown by `presswork history NAME --key KEY`.",
    "generation": "`presswork history RUN` and the ledger's table generations have the ids.",
}


class NoLedgerError(ConfigurationError):
    """There is no ledger yet: `presswork demo` makes one, and so does the first `presswork run`."""


def ledger_urls(settings: Settings, *, sandbox: bool = False) -> list[str]:
    """Return the ledgers that are there, the one to read first; none where none has been made yet."""
    names = [SANDBOX] if sandbox else [ANTHROPIC, SANDBOX]
    urls = dict.fromkeys(ledger_url(settings, name) for name in names)
    return [url for url in urls if not is_missing_file(url)]


def first_url(settings: Settings, *, sandbox: bool = False) -> str:
    """Return the ledger to read, or where there is none yet the one that would be made."""
    urls = ledger_urls(settings, sandbox=sandbox)
    return urls[0] if urls else ledger_url(settings, SANDBOX if sandbox else ANTHROPIC)


@contextmanager
def opened(url: str, connect: Callable[[str], Engine] = open_ledger) -> Iterator[Engine]:
    """Open a ledger for as long as the block lasts; LedgerError says what is wrong with it."""
    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


def first_with(
    urls: Iterable[str],
    read: Callable[[Engine], Found | None],
    connect: Callable[[str], Engine] = open_ledger,
    *,
    passing: tuple[type[Exception], ...] = (),
) -> tuple[str, Found] | None:
    """Read ledgers one by one, and return the first that has something, with what it has.

    A ledger that raises an error of the kinds in `passing` is passed over.
    """
    for url in urls:
        with suppress(*passing), opened(url, connect) as ledger:
            found = read(ledger)
            if found:
                return url, found
    return None


def find_by_id(
    settings: Settings, read: Callable[[Engine, str], Found | None], noun: str, asked: str, *, sandbox: bool = False
) -> tuple[str, Found]:
    """Look for a run or a generation in each ledger that is there: an id names it wherever it is.

    Return the ledger's URL and what `read` has found there. NoLedgerError where there is no ledger, ConfigurationError
    where none has it.
    """
    urls = ledger_urls(settings, sandbox=sandbox)
    if not urls:
        raise NoLedgerError
    found = first_with(urls, lambda ledger: read(ledger, asked))
    if found is None:
        raise ConfigurationError(
            f"There is no {noun} whose id begins or ends with {asked!r} in {' or '.join(map(ledger_name, urls))}, "
            f"or there are several: give at least 6 characters. {_HAVE_IDS[noun]}"
        )
    return found


def ledger_name(url: str) -> str:
    """Call a ledger what people call it: the file's name, where it lies in the project's root."""
    shown = readable_url(url)
    return shown.removeprefix(f"sqlite:///{ROOT}/")


def say_ledger(url: str, *, others: bool) -> None:
    """Say on standard error which ledger is read, and how to read the other."""
    hint = " (`--sandbox` reads the sandbox's)" if others else ""
    screen.say(f"Ledger: {ledger_name(url)}{hint}", "dim")
