"""`presswork export`: write all generations that match to a file or to standard output."""

import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from sqlalchemy import Engine

from presswork.errors import ParameterError
from presswork.exports.exporting import (
    CSV,
    FORMATS,
    JSONL,
    PARQUET,
    Exported,
    ExportOrder,
    export_to_file,
    export_to_stream,
)
from presswork.terminal import screen
from presswork.terminal.asked_filters import wanted_by
from presswork.terminal.audit_flags import ExportFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import NoLedgerError, ledger_urls, opened, say_ledger

STDOUT = "-"
_TOLD_EVERY = 100_000


def export_generations(command: CommandContext, flags: ExportFlags) -> None:
    """Export, and report how many rows were written and where."""
    order = _order(flags)
    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    if not urls:
        raise NoLedgerError
    with opened(urls[0]) as ledger:
        if not command.as_json:
            say_ledger(urls[0], others=len(urls) > 1)
        if flags.to == STDOUT:
            done = export_to_stream(ledger, order, sys.stdout.buffer, _Progress())
            screen.say(_words(done, "standard output"), "dim")
            return
        _export_to_file(command, ledger, order, Path(flags.to))


def _export_to_file(command: CommandContext, ledger: Engine, order: ExportOrder, target: Path) -> None:
    done = export_to_file(ledger, order, target, _Progress())
    answer = {"file": str(target), "format": order.kind, "bytes": target.stat().st_size, **asdict(done)}
    command.answer(answer, lambda console: _print_done(console, done, target))


def _print_done(console: Console, done: Exported, target: Path) -> None:
    console.print(screen.data(_words(done, str(target))), soft_wrap=True)


def _words(done: Exported, where: str) -> str:
    resumed = f", {done.resumed:,} of them before this export was resumed" if done.resumed else ""
    return f"Exported {done.rows:,} generations to {where}{resumed}: all up to {screen.moment(done.began_at)} UTC."


class _Progress:
    """Reports rows now and then."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, rows: int) -> None:
        if rows - self._told >= _TOLD_EVERY:
            self._told = rows
            screen.say(f"{rows:,} rows", "dim")


def _order(flags: ExportFlags) -> ExportOrder:
    kind = flags.kind or (JSONL if flags.to == STDOUT else Path(flags.to).suffix.removeprefix(".").lower())
    if kind not in FORMATS:
        raise ParameterError(
            f"{kind!r} is no format of an export. Available: {', '.join(FORMATS)}. Name a file with one of these "
            "endings, or use --format."
        )
    if flags.to == STDOUT:
        if kind == PARQUET:
            raise ParameterError("Parquet can't be written to standard output. Name a file.")
        if flags.as_json:
            raise ParameterError("`--to -` already prints the rows, so --json is not possible. Leave one out.")
        if flags.restart:
            raise ParameterError("--restart is for files: standard output is never resumed.")
    if flags.bom and kind != CSV:
        raise ParameterError("--bom is for CSV only. Leave it out.")
    return ExportOrder(wanted_by(flags), kind, bom=flags.bom, restart=flags.restart)
