"""Choose the ledger that a command reads.

A run's endpoint decides its ledger. Other commands read PRESSWORK_DATABASE_URL if it is set. Otherwise they read the
file that exists; if both exist, Claude's, or the sandbox's with --sandbox.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from sqlalchemy import Engine

from db.ledger.connecting import damage_reported, open_ledger
from db.session import readable_url
from db.sources.access import is_missing_file
from db.words import ANTHROPIC, SANDBOX
from presswork.errors import ConfigurationError
from presswork.settings import ROOT, Settings, ledger_url
from presswork.terminal import screen

Found = TypeVar("Found")
_HAVE_IDS = {
    "run": "`presswork history` lists the runs. `presswork history NAME --key KEY` shows a record's history.",
    "generation": "`presswork history RUN` lists ids, and so does the ledger's table generations.",
}


class NoLedgerError(ConfigurationError):
    """There is no ledger yet: `presswork demo` creates one, or the first `presswork run`."""


def ledger_urls(settings: Settings, *, sandbox: bool = False) -> list[str]:
    """Return the URLs of the ledgers that exist, in the order in which to read them."""
    names = [SANDBOX] if sandbox else [ANTHROPIC, SANDBOX]
    urls = dict.fromkeys(ledger_url(settings, name) for name in names)
    return [url for url in urls if not is_missing_file(url)]


def first_url(settings: Settings, *, sandbox: bool = False) -> str:
    """Return the URL of the ledger to read, or of the one to create if there is none yet."""
    urls = ledger_urls(settings, sandbox=sandbox)
    return urls[0] if urls else ledger_url(settings, SANDBOX if sandbox else ANTHROPIC)


@contextmanager
def opened(url: str, connect: Callable[[str], Engine] = open_ledger) -> Iterator[Engine]:
    """Open a ledger for as long as the block lasts. Raises LedgerError if it can't be used."""
    engine = connect(url)
    try:
        with damage_reported(url):
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
    """Read ledgers one by one; return the URL of the first in which `read` finds something, and what it finds.

    A ledger that raises one of the errors in `passing` is skipped.
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
    """Look for a run or a generation in each ledger that exists.

    Returns the ledger's URL and what `read` finds there. Raises NoLedgerError if there is no ledger, ConfigurationError
    if none has the id.
    """
    urls = ledger_urls(settings, sandbox=sandbox)
    if not urls:
        raise NoLedgerError
    found = first_with(urls, lambda ledger: read(ledger, asked))
    if found is None:
        raise ConfigurationError(
            f"There is no {noun}, or more than one, whose id starts or ends with {asked!r} in "
            f"{' or '.join(map(ledger_name, urls))}. Give at least 6 characters. {_HAVE_IDS[noun]}"
        )
    return found


def ledger_name(url: str) -> str:
    """Name a ledger for people: its URL without a password, or the file's name if it is in the project's root."""
    shown = readable_url(url)
    return shown.removeprefix(f"sqlite:///{ROOT}/")


def say_ledger(url: str, *, others: bool) -> None:
    """Print on standard error which ledger is read, and how to read the other."""
    hint = " (use `--sandbox` for the sandbox's)" if others else ""
    screen.say(f"Ledger: {ledger_name(url)}{hint}", "dim")
