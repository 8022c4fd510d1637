"""`presswork db`: make or migrate the ledger, and say whether it is current."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from db.words import ANTHROPIC, SANDBOX
from flows.commands.terminal import screen
from flows.commands.terminal.endings import told
from flows.commands.terminal.flags import AsJson, OfSandbox

if TYPE_CHECKING:
    from db.ledger.refused_rows import RefusedRow

app = typer.Typer(help="Make, migrate and check the ledger.", no_args_is_help=True)


@app.command()
def upgrade(sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Bring the ledger's tables up to what this code needs; a ledger that is not there yet is made."""
    with told(as_json=as_json):
        from db.ledger.connecting import connect_ledger  # noqa: PLC0415 - see commands/__init__.py
        from db.ledger.migrating import check, upgrade  # noqa: PLC0415 - see commands/__init__.py

        url = _url(sandbox=sandbox)
        ledger = connect_ledger(url)
        try:
            upgrade(ledger)
            revision = check(ledger)
        finally:
            ledger.dispose()
        _tell(url, revision, as_json=as_json)


@app.command()
def check(sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Say which ledger is used and whether its tables are current; exit status 2 where they are not."""
    with told(as_json=as_json):
        from db.database_errors import LedgerNotMigratedError  # noqa: PLC0415 - see commands/__init__.py
        from db.ledger.connecting import connect_ledger  # noqa: PLC0415
        from db.ledger.migrating import check  # noqa: PLC0415
        from flows.commands.ledger.ledgers import ledger_name  # noqa: PLC0415
        from flows.engine.resources.source_urls import is_missing_file  # noqa: PLC0415

        url = _url(sandbox=sandbox)
        if is_missing_file(url):
            raise LedgerNotMigratedError(
                f"The ledger {ledger_name(url)} has not been made yet: the first run makes it, and so does "
                "`presswork db upgrade`."
            )
        ledger = connect_ledger(url)
        try:
            revision = check(ledger)
        finally:
            ledger.dispose()
        _tell(url, revision, as_json=as_json)


@app.command()
def recover(sandbox: OfSandbox = False, as_json: AsJson = False) -> None:
    """Write in what waits in spill files since the ledger was away; exit status 2 where one is refused."""
    with told(as_json=as_json):
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - see commands/__init__.py

        from db.ledger.connecting import open_ledger  # noqa: PLC0415
        from db.ledger.refused_rows import in_words  # noqa: PLC0415
        from db.ledger.spill import SpillError, find_spills, recover, refused_file  # noqa: PLC0415
        from db.session import reason_of  # noqa: PLC0415
        from flows.settings import load_settings  # noqa: PLC0415

        recovered: dict[str, int] = {}
        refused: list[str] = []
        rows: dict[str, list[RefusedRow]] = {}
        folders = load_settings().spill_folders
        ledger = open_ledger(_url(sandbox=sandbox))
        try:
            for path in [found for folder in folders for found in find_spills(folder)]:
                found = rows[str(refused_file(path))] = []
                try:
                    recovered[str(path)] = recover(ledger, path, found)
                except SpillError as error:
                    refused.append(str(error))
                except SQLAlchemyError as error:
                    reason = reason_of(error, ledger.url)
                    refused.append(f"The spill file {path} can't be imported: {reason}. The file is kept.")
        finally:
            ledger.dispose()
        named = {kept: in_words(found) for kept, found in rows.items() if found}
        if as_json:
            screen.print_json({"recovered": recovered, "refused": refused, "refused_rows": named})
        else:
            for name, count in recovered.items():
                screen.out().print(screen.data(f"Imported {count:,} generations from {name}."))
            for kept, words in named.items():
                screen.out().print(screen.data(f"{words} As they were, they are kept in {kept}."))
            if not recovered and not refused:
                screen.out().print("No spill file waits.")
        if refused:
            raise SpillError(" ".join(refused))


def _url(*, sandbox: bool) -> str:
    from flows.commands.ledger.ledgers import ledger_urls  # noqa: PLC0415 - see commands/__init__.py
    from flows.settings import ledger_url, load_settings  # noqa: PLC0415

    settings = load_settings()
    urls = ledger_urls(settings, sandbox=sandbox)
    return urls[0] if urls else ledger_url(settings, SANDBOX if sandbox else ANTHROPIC)


def _tell(url: str, revision: str, *, as_json: bool) -> None:
    from db.session import readable_url  # noqa: PLC0415 - see commands/__init__.py
    from flows.commands.ledger.ledgers import ledger_name  # noqa: PLC0415

    if as_json:
        screen.print_json({"ledger": readable_url(url), "revision": revision, "current": True})
    else:
        screen.out().print(screen.data(f"The ledger {ledger_name(url)} is current (revision {revision})."))
