"""Create or migrate the ledger, check that it is current, and import spill files."""

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import LedgerNotMigratedError
from db.ledger import connecting, spill
from db.ledger.refused_rows import RefusedRow, in_words
from db.rollups.marks import roll_up_ended
from db.session import readable_url, reason_of
from db.sources.access import is_missing_file
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledger_flags import CheckFlags, RecoverFlags, UpgradeFlags
from presswork.terminal.ledgers import first_url, ledger_name, opened


def upgrade_ledger(command: CommandContext, flags: UpgradeFlags) -> None:
    """Migrate the ledger, and print its revision."""
    url = first_url(command.settings, sandbox=flags.sandbox)
    with opened(url, connecting.connect_ledger) as ledger:
        connecting.upgrade(ledger)
        _say_current(command, url, ledger)


def require_current(command: CommandContext, flags: CheckFlags) -> None:
    """Print the ledger's revision. Raises LedgerNotMigratedError if it is not current."""
    url = first_url(command.settings, sandbox=flags.sandbox)
    if is_missing_file(url):
        raise LedgerNotMigratedError(
            f"The ledger {ledger_name(url)} does not exist yet. The first run creates it, or `presswork db upgrade`."
        )
    with opened(url, connecting.connect_ledger) as ledger:
        _say_current(command, url, ledger)


def _say_current(command: CommandContext, url: str, ledger: Engine) -> None:
    revision = connecting.check(ledger, url)
    words = screen.data(f"The ledger {ledger_name(url)} is current (revision {revision}).")
    current = {"ledger": readable_url(url), "revision": revision, "current": True}
    command.answer(current, lambda console: console.print(words))


def recover_spills(command: CommandContext, flags: RecoverFlags) -> None:
    """Import each spill file. Raises SpillError if a file could not be imported."""
    settings = command.settings
    recovered: dict[str, int] = {}
    refused: list[str] = []
    rows: dict[str, list[RefusedRow]] = {}
    with opened(first_url(settings, sandbox=flags.sandbox)) as ledger:
        for path in [found for folder in settings.spill_folders for found in spill.find_spills(folder)]:
            found = rows[str(spill.refused_file(path))] = []
            try:
                recovered[str(path)] = spill.recover(ledger, path, found)
            except spill.SpillError as error:
                refused.append(str(error))
            except SQLAlchemyError as error:
                reason = reason_of(error, ledger.url)
                refused.append(f"The spill file {path} can't be imported: {reason}. The file is kept.")
        if recovered:
            roll_up_ended(ledger)
    named = {kept: in_words(found) for kept, found in rows.items() if found}
    lines = [f"Imported {count:,} generations from {name}." for name, count in recovered.items()]
    lines += [f"{words} The original rows are saved in {kept}." for kept, words in named.items()]
    if not recovered and not refused:
        lines.append("There are no spill files to import.")
    answer = {"recovered": recovered, "refused": refused, "refused_rows": named}
    command.answer(answer, lambda console: console.print(*map(screen.data, lines), sep="\n") if lines else None)
    if refused:
        raise spill.SpillError(" ".join(refused))
