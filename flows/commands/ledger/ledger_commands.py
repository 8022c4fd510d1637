"""`presswork db`: make or migrate the ledger, and say whether it is current."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from db.database_errors import LedgerNotMigratedError
from flows.commands.terminal import screen
from flows.commands.terminal.endings import CommandContext, command_context
from flows.commands.terminal.flags import AsJson, OfSandbox

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.ledger.refused_rows import RefusedRow

app = typer.Typer(help="Make, migrate and check the ledger.", no_args_is_help=True)


@app.command()
def upgrade(sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Bring the ledger's tables up to what this code needs; a ledger that is not there yet is made."""
    with command_context(as_json=as_json) as command:
        from db.ledger.connecting import upgrade  # noqa: PLC0415 - see commands/__init__.py

        _require_current(command, upgrade, sandbox=sandbox)


@app.command()
def check(sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Say which ledger is used and whether its tables are current; exit status 2 where they are not."""
    with command_context(as_json=as_json) as command:
        _require_current(command, None, sandbox=sandbox)


def _require_current(command: CommandContext, migrate: Callable[[Engine], None] | None, *, sandbox: bool) -> None:
    """Say that the ledger is current, after it was migrated where that is asked for."""
    from db.ledger.connecting import check, connect_ledger  # noqa: PLC0415 - see commands/__init__.py
    from db.session import readable_url  # noqa: PLC0415
    from flows.commands.ledger.ledgers import first_url, ledger_name, opened  # noqa: PLC0415
    from flows.engine.resources.source_reads import is_missing_file  # noqa: PLC0415

    url = first_url(command.settings, sandbox=sandbox)
    if migrate is None and is_missing_file(url):
        raise LedgerNotMigratedError(
            f"The ledger {ledger_name(url)} has not been made yet: the first run makes it, and so does "
            "`presswork db upgrade`."
        )
    with opened(url, connect_ledger) as ledger:
        if migrate is not None:
            migrate(ledger)
        revision = check(ledger)
    words = screen.data(f"The ledger {ledger_name(url)} is current (revision {revision}).")
    current = {"ledger": readable_url(url), "revision": revision, "current": True}
    command.answer(current, lambda console: console.print(words))


@app.command()
def recover(sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Write in what waits in spill files since the ledger was away; exit status 2 where one is refused."""
    with command_context(as_json=as_json) as command:
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - see commands/__init__.py

        from db.ledger.refused_rows import in_words  # noqa: PLC0415
        from db.ledger.spill import SpillError, find_spills, recover, refused_file  # noqa: PLC0415
        from db.session import reason_of  # noqa: PLC0415
        from flows.commands.ledger.ledgers import first_url, opened  # noqa: PLC0415

        settings = command.settings
        recovered: dict[str, int] = {}
        refused: list[str] = []
        rows: dict[str, list[RefusedRow]] = {}
        with opened(first_url(settings, sandbox=sandbox)) as ledger:
            for path in [found for folder in settings.spill_folders for found in find_spills(folder)]:
                found = rows[str(refused_file(path))] = []
                try:
                    recovered[str(path)] = recover(ledger, path, found)
                except SpillError as error:
                    refused.append(str(error))
                except SQLAlchemyError as error:
                    reason = reason_of(error, ledger.url)
                    refused.append(f"The spill file {path} can't be imported: {reason}. The file is kept.")
        named = {kept: in_words(found) for kept, found in rows.items() if found}
        lines = [f"Imported {count:,} generations from {name}." for name, count in recovered.items()]
        lines += [f"{words} As they were, they are kept in {kept}." for kept, words in named.items()]
        if not recovered and not refused:
            lines.append("No spill file waits.")
        answer = {"recovered": recovered, "refused": refused, "refused_rows": named}
        command.answer(answer, lambda console: console.print(*map(screen.data, lines), sep="\n") if lines else None)
        if refused:
            raise SpillError(" ".join(refused))
