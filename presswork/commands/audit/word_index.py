"""`presswork audit index`: index the words of answers, so that a search does not have to read them all."""

from dataclasses import asdict

from rich.console import Console
from sqlalchemy import Engine

from db.database_errors import LedgerNotMigratedError
from db.search.index_places import remove_index, size_of_index
from db.search.indexing import Indexed, index_all
from db.session import readable_url
from db.sources.access import is_missing_file
from presswork.terminal import screen
from presswork.terminal.audit_flags import IndexFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import first_url, ledger_name, opened


def index_words(command: CommandContext, flags: IndexFlags) -> None:
    """Index all closed runs, newest first, and report how many; with `--remove` remove the index."""
    url = first_url(command.settings, sandbox=flags.sandbox)
    if is_missing_file(url):
        raise LedgerNotMigratedError(f"The ledger {ledger_name(url)} does not exist yet. The first run creates it.")
    with opened(url) as ledger:
        if not command.as_json:
            screen.say(f"Ledger: {ledger_name(url)}", "dim")
        answer = {"ledger": readable_url(url)}
        if flags.remove:
            removed = remove_index(ledger)
            told = "The index of words is removed." if removed else "There is no index of words."
            command.answer(answer | {"removed": removed}, lambda console: console.print(told))
            return
        found = _index(command, ledger)
        size = size_of_index(ledger)
    command.answer(answer | asdict(found) | {"bytes": size}, lambda console: _print_indexed(console, found, size))


def _index(command: CommandContext, ledger: Engine) -> Indexed:
    console = screen.err()
    if command.as_json or not console.is_terminal:
        return index_all(ledger)
    with console.status("Indexing ...") as status:

        def say(runs: int, of: int, answers: int) -> None:
            status.update(f"Indexing: {runs:,} of {of:,} runs, {answers:,} answers ...")

        return index_all(ledger, say)


def _print_indexed(console: Console, found: Indexed, size: int) -> None:
    if found.runs:
        console.print(f"Indexed {found.answers:,} answers of {found.runs:,} runs.")
    else:
        console.print("All closed runs are indexed.")
    if found.forgotten:
        console.print(
            f"The index had {found.forgotten:,} runs that are not in this ledger, and forgets them: the ledger was "
            "restored, or the index was made for another one."
        )
    console.print(
        f"The index has {size / 1_000_000:,.1f} MB. From now on, each run is indexed when it closes. "
        f"`{screen.command('search WORDS')}` searches it."
    )
