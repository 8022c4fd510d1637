"""Show the ledger's size, and compact, prune or rebuild it.

A command prints what it would change, and changes it only with --yes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text
from sqlalchemy import Engine

from db.database_errors import LedgerNotMigratedError
from db.session import readable_url
from db.sources.access import is_missing_file
from db.upkeep import compacting, pruning, rebuilding, recounting, sizes
from presswork.errors import ParameterError
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_FAILED, CommandContext
from presswork.terminal.ledger_flags import CompactFlags, LedgerFlags, PruneFlags, RebuildFlags, SizeFlags
from presswork.terminal.ledgers import first_url, ledger_name, opened

MEGABYTE = 1_000_000
NOTHING_CHANGED = "Nothing was changed. `{command}` makes these changes."


@contextmanager
def _ledger(command: CommandContext, flags: LedgerFlags) -> Iterator[tuple[Engine, dict[str, Any]]]:
    """Yield the ledger and the beginning of the answer. Raises LedgerNotMigratedError if there is no ledger."""
    url = first_url(command.settings, sandbox=flags.sandbox)
    if is_missing_file(url):
        raise LedgerNotMigratedError(f"The ledger {ledger_name(url)} does not exist yet. The first run creates it.")
    with opened(url) as ledger:
        if not command.as_json:
            screen.say(f"Ledger: {ledger_name(url)}", "dim")
        yield ledger, {"ledger": readable_url(url)}


@contextmanager
def _progress(command: CommandContext, doing: str) -> Iterator[Callable[[str], None]]:
    """Show progress on a terminal. Yields a function that changes the words shown."""
    console = screen.err()
    if command.as_json or not console.is_terminal:
        yield lambda _how_far: None
        return
    with console.status(f"{doing} ...") as status:
        yield lambda how_far: status.update(f"{doing}: {how_far} ...")


def show_size(command: CommandContext, flags: SizeFlags) -> None:
    """Print the size of each table."""
    with _ledger(command, flags) as (ledger, answer):
        found = sizes.measure(ledger)
    command.answer({**answer, **asdict(found)}, lambda console: _print_size(console, found))


def compact_ledger(command: CommandContext, flags: CompactFlags) -> None:
    """Print how many rows repeat the one before, and remove them with --yes."""
    if flags.vacuum and not flags.yes:
        raise ParameterError("--vacuum needs --yes. Without --yes nothing is changed.")
    with (
        _ledger(command, flags) as (ledger, answer),
        _progress(command, "Compacting" if flags.yes else "Looking for repeated rows") as say,
    ):
        work = compacting.compact if flags.yes else compacting.find_removable
        found = work(ledger, lambda done, rows: say(f"{done:,} of {rows:,} rows"))
        if flags.yes and flags.vacuum:
            say("shrinking the file")
            compacting.vacuum(ledger)
        is_file = ledger.dialect.name == "sqlite"
    gone = {"rows": sum(each.repeats for each in found), "bytes": sum(each.bytes for each in found)}
    answer |= {"applied": flags.yes, **gone, "steps": [asdict(each) for each in found]}
    told = _room_freed(is_file=is_file, vacuumed=flags.vacuum) if flags.vacuum or (flags.yes and gone["rows"]) else ""
    command.answer(answer, lambda console: _print_compacted(console, found, told, done=flags.yes))


def prune_ledger(command: CommandContext, flags: PruneFlags) -> None:
    """Print how many rows nothing needs, and remove them with --yes."""
    with (
        _ledger(command, flags) as (ledger, answer),
        _progress(command, "Pruning" if flags.yes else "Looking for rows that nothing needs") as say,
    ):
        work = pruning.prune if flags.yes else pruning.find_unused
        found = work(ledger, say)
    answer |= {"applied": flags.yes, "tables": [asdict(each) for each in found]}
    command.answer(answer, lambda console: _print_pruned(console, found, done=flags.yes))


def rebuild_content(command: CommandContext, flags: RebuildFlags) -> int:
    """Print the number of records whose content differs from their history, and of runs with wrong rollups.

    Corrects them with --yes.
    """
    with _ledger(command, flags) as (ledger, answer), _progress(command, "Comparing content with history") as say:
        work = rebuilding.rebuild if flags.yes else rebuilding.compare
        found = work(ledger, lambda records: say(f"{records:,} records"))
        recount = recounting.correct_rollups if flags.yes else recounting.find_wrong_rollups
        sums = recount(ledger, lambda runs: say(f"sums of {runs:,} runs"))
    answer |= {"applied": flags.yes, "wrong": found.wrong, **asdict(found), "rollups": asdict(sums)}
    command.answer(answer, lambda console: _print_rebuilt(console, found, sums, done=flags.yes))
    return EXIT_FAILED if found.wrong + sums.wrong and not flags.yes else 0


def _print_size(console: Console, found: sizes.LedgerSize) -> None:
    rows = [
        (
            each.table,
            f"{each.rows:,}",
            "unknown" if each.bytes is None else _bytes(each.bytes),
            f"{each.bytes // each.rows:,}" if each.bytes and each.rows else "",
            each.holds,
        )
        for each in found.tables
    ]
    numbers = ("rows", "size", "bytes a row")
    console.print(screen.table(["table", *numbers, "holds"], rows, right=numbers))
    console.print()
    free = f", of which {_bytes(found.free_bytes)} are free for new rows" if found.free_bytes else ""
    console.print(f"Total: {_bytes(found.bytes)}{free}.")
    if any(each.bytes is None for each in found.tables):
        console.print("This SQLite does not report the size of each table.")
    if found.compactable:
        about = "" if found.compactable_bytes is None else f" (about {_bytes(found.compactable_bytes)})"
        console.print(
            f"Up to {found.compactable:,} rows of history may be repeats{about}. "
            f"`{screen.command('db compact')}` finds them."
        )
    if found.leftovers:
        console.print(f"Nothing needs {found.leftovers:,} working rows. `{screen.command('db prune')}` removes them.")


def _print_compacted(console: Console, found: Sequence[compacting.StepRepeats], freed: str, *, done: bool) -> None:
    rows = [
        (each.flow, each.step, each.endpoint, f"{each.rows:,}", f"{each.repeats:,}", _bytes(each.bytes))
        for each in found
        if each.repeats
    ]
    if not rows:
        console.print(f"No row of history repeats the one before. There is nothing to compact. {freed}".strip())
        return
    counts = ("rows", "removed" if done else "repeats", "about")
    console.print(screen.table(["flow", "step", "endpoint", *counts], rows, right=counts))
    repeats, size = sum(each.repeats for each in found), sum(each.bytes for each in found)
    verb = "Removed" if done else "Removable:"
    console.print(f"\n{verb} {repeats:,} of {sum(each.rows for each in found):,} rows, about {_bytes(size)}.")
    if done:
        console.print(freed)
    else:
        _print_dry(console, "db compact --yes")


def _room_freed(*, is_file: bool, vacuumed: bool) -> str:
    if not is_file:
        return (
            "PostgreSQL uses the space for new rows once it has vacuumed. To shrink the tables on the disk, run "
            "`VACUUM FULL generations, generation_parents` while no run is active."
        )
    if vacuumed:
        return "The file was shrunk."
    return (
        "The space is free for new rows; the file keeps its size. To shrink it, run "
        f"`{screen.command('db compact --yes --vacuum')}`."
    )


def _print_pruned(console: Console, found: Sequence[pruning.Unused], *, done: bool) -> None:
    some = [each for each in found if each.rows]
    if not some:
        console.print("Every row is needed. There is nothing to prune.")
        return
    counts = ("removed" if done else "not needed", "text")
    rows = [(each.table, f"{each.rows:,}", _bytes(each.bytes) if each.bytes else "") for each in some]
    console.print(screen.table(["table", *counts], rows, right=counts))
    if not done:
        _print_dry(console, "db prune --yes")


def _print_rebuilt(
    console: Console, found: rebuilding.Differences, sums: recounting.RollupDifferences, *, done: bool
) -> None:
    verb = "Corrected" if done else "Wrong"
    if found.wrong:
        _print_differences(console, found)
        console.print(f"\n{verb} for {found.wrong:,} of {found.records:,} records.")
    else:
        console.print(f"Content agrees with history for all {found.records:,} records.")
    if sums.wrong:
        named = ", ".join(sums.first) + (", ..." if sums.wrong > len(sums.first) else "")
        console.print(f"{verb}: the sums of {sums.wrong:,} of {sums.runs:,} closed runs ({named}).")
    else:
        console.print(f"The sums of all {sums.runs:,} closed runs agree with their requests and generations.")
    if found.wrong + sums.wrong and not done:
        _print_dry(console, "db rebuild --yes")


def _print_differences(console: Console, found: rebuilding.Differences) -> None:
    reasons = {
        "missing in content": found.missing,
        "missing in history": found.unknown,
        "content is not the current one": found.standing,
        "failure is not the latest one": found.failing,
    }
    rows = [(reason, f"{count:,}") for reason, count in reasons.items() if count]
    console.print(screen.table(["what is wrong", "records"], rows, right=["records"]))
    console.print()
    console.print(screen.table(["step", "record" if len(found.first) == found.wrong else "first records"], found.first))


def _print_dry(console: Console, arguments: str) -> None:
    console.print(Text(f"\n{NOTHING_CHANGED.format(command=screen.command(arguments))}", "dim"))


def _bytes(count: int) -> str:
    if count >= 1000 * MEGABYTE:
        return f"{count / (1000 * MEGABYTE):,.1f} GB"
    return f"{count / MEGABYTE:,.1f} MB" if count >= MEGABYTE else f"{count / 1000:,.1f} kB"
