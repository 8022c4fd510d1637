"""`presswork db size`, `compact`, `prune` and `rebuild`: what takes the ledger's room, and what upkeep makes of it.

Those that change something say first what that would be, and do it with --yes.
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
from db.upkeep import compacting, pruning, rebuilding, sizes
from presswork.errors import ParameterError
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_FAILED, CommandContext
from presswork.terminal.flags import CompactFlags, LedgerFlags, PruneFlags, RebuildFlags, SizeFlags
from presswork.terminal.ledgers import first_url, ledger_name, opened

MEGABYTE = 1_000_000
NOTHING_CHANGED = "Nothing was changed: this is what `{command}` would do."


@contextmanager
def _ledger(command: CommandContext, flags: LedgerFlags) -> Iterator[tuple[Engine, dict[str, Any]]]:
    """Yield the ledger that a command works on, and how its answer begins; one that is not there is not made."""
    url = first_url(command.settings, sandbox=flags.sandbox)
    if is_missing_file(url):
        raise LedgerNotMigratedError(f"There is no ledger {ledger_name(url)} yet: the first run makes it.")
    with opened(url) as ledger:
        if not command.as_json:
            screen.say(f"Ledger: {ledger_name(url)}", "dim")
        yield ledger, {"ledger": readable_url(url)}


@contextmanager
def _progress(command: CommandContext, doing: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal how far something is: the function says it."""
    console = screen.err()
    if command.as_json or not console.is_terminal:
        yield lambda _how_far: None
        return
    with console.status(f"{doing} ...") as status:
        yield lambda how_far: status.update(f"{doing}: {how_far} ...")


def show_size(command: CommandContext, flags: SizeFlags) -> None:
    """Print what takes the room."""
    with _ledger(command, flags) as (ledger, answer):
        found = sizes.measure(ledger)
    command.answer({**answer, **asdict(found)}, lambda console: _print_size(console, found))


def compact_ledger(command: CommandContext, flags: CompactFlags) -> None:
    """Print which rows say nothing new, and remove them where that is confirmed."""
    if flags.vacuum and not flags.yes:
        raise ParameterError("--vacuum goes with --yes: without it nothing is changed.")
    with (
        _ledger(command, flags) as (ledger, answer),
        _progress(command, "Compacting" if flags.yes else "Looking for rows that say nothing new") as say,
    ):
        work = compacting.compact if flags.yes else compacting.find_removable
        found = work(ledger, lambda done, rows: say(f"{done:,} of {rows:,} rows"))
        if flags.yes and flags.vacuum:
            say("giving the room back to the disk")
            compacting.vacuum(ledger)
        is_file = ledger.dialect.name == "sqlite"
    gone = {"rows": sum(each.repeats for each in found), "bytes": sum(each.bytes for each in found)}
    answer |= {"applied": flags.yes, **gone, "steps": [asdict(each) for each in found]}
    told = _room_freed(is_file=is_file, vacuumed=flags.vacuum) if flags.vacuum or (flags.yes and gone["rows"]) else ""
    command.answer(answer, lambda console: _print_compacted(console, found, told, done=flags.yes))


def prune_ledger(command: CommandContext, flags: PruneFlags) -> None:
    """Print what nothing needs, and remove it where that is confirmed."""
    with (
        _ledger(command, flags) as (ledger, answer),
        _progress(command, "Pruning" if flags.yes else "Looking for what nothing needs") as say,
    ):
        work = pruning.prune if flags.yes else pruning.find_unused
        found = work(ledger, say)
    answer |= {"applied": flags.yes, "tables": [asdict(each) for each in found]}
    command.answer(answer, lambda console: _print_pruned(console, found, done=flags.yes))


def rebuild_content(command: CommandContext, flags: RebuildFlags) -> int:
    """Print for how many records content is not what history says, and make it right where that is confirmed."""
    with _ledger(command, flags) as (ledger, answer), _progress(command, "Comparing content with history") as say:
        work = rebuilding.rebuild if flags.yes else rebuilding.compare
        found = work(ledger, lambda records: say(f"{records:,} records"))
    answer |= {"applied": flags.yes, "wrong": found.wrong, **asdict(found)}
    command.answer(answer, lambda console: _print_rebuilt(console, found, done=flags.yes))
    return EXIT_FAILED if found.wrong and not flags.yes else 0


def _print_size(console: Console, found: sizes.LedgerSize) -> None:
    rows = [
        (
            each.table,
            f"{each.rows:,}",
            "not told" if each.bytes is None else _bytes(each.bytes),
            f"{each.bytes // each.rows:,}" if each.bytes and each.rows else "",
            each.holds,
        )
        for each in found.tables
    ]
    numbers = ("rows", "size", "bytes a row")
    console.print(screen.table(["table", *numbers, "holds"], rows, right=numbers))
    console.print()
    free = f", of which {_bytes(found.free_bytes)} are free for new rows" if found.free_bytes else ""
    console.print(f"In all {_bytes(found.bytes)}{free}.")
    if any(each.bytes is None for each in found.tables):
        console.print("This SQLite does not tell what each table takes.")
    if found.compactable:
        about = "" if found.compactable_bytes is None else f" (about {_bytes(found.compactable_bytes)})"
        console.print(
            f"Up to {found.compactable:,} rows of history may say nothing new{about}: `{screen.command('db compact')}` "
            "looks which do."
        )
    if found.leftovers:
        console.print(f"Nobody needs {found.leftovers:,} working rows: `{screen.command('db prune')}` removes them.")


def _print_compacted(console: Console, found: Sequence[compacting.StepRepeats], freed: str, *, done: bool) -> None:
    rows = [
        (each.flow, each.step, each.endpoint, f"{each.rows:,}", f"{each.repeats:,}", _bytes(each.bytes))
        for each in found
        if each.repeats
    ]
    if not rows:
        console.print(f"Every row of history says something new: there is nothing to compact. {freed}".strip())
        return
    counts = ("rows", "removed" if done else "say nothing new", "about")
    console.print(screen.table(["flow", "step", "endpoint", *counts], rows, right=counts))
    repeats, size = sum(each.repeats for each in found), sum(each.bytes for each in found)
    verb = "Removed" if done else "To be removed:"
    console.print(f"\n{verb} {repeats:,} of {sum(each.rows for each in found):,} rows, about {_bytes(size)}.")
    if done:
        console.print(freed)
    else:
        _print_dry(console, "db compact --yes")


def _room_freed(*, is_file: bool, vacuumed: bool) -> str:
    if not is_file:
        return (
            "PostgreSQL uses the room for new rows once it has vacuumed. To give it back to the disk, run "
            "`VACUUM FULL generations, generation_parents` while nobody works."
        )
    if vacuumed:
        return "The room was given back to the disk."
    return (
        "The room is free for new rows; the file stays as large as it is. To give the room back to the disk, run "
        f"`{screen.command('db compact --yes --vacuum')}`."
    )


def _print_pruned(console: Console, found: Sequence[pruning.Unused], *, done: bool) -> None:
    some = [each for each in found if each.rows]
    if not some:
        console.print("Every row is needed: there is nothing to prune.")
        return
    counts = ("removed" if done else "not needed", "text")
    rows = [(each.table, f"{each.rows:,}", _bytes(each.bytes) if each.bytes else "") for each in some]
    console.print(screen.table(["table", *counts], rows, right=counts))
    if not done:
        _print_dry(console, "db prune --yes")


def _print_rebuilt(console: Console, found: rebuilding.Differences, *, done: bool) -> None:
    if not found.wrong:
        console.print(f"Content is what history says, for all {found.records:,} records.")
        return
    reasons = {
        "content lacks them": found.missing,
        "history does not know them": found.unknown,
        "another content stands": found.standing,
        "another failure came last": found.failing,
    }
    rows = [(reason, f"{count:,}") for reason, count in reasons.items() if count]
    console.print(screen.table(["what is wrong", "records"], rows, right=["records"]))
    console.print()
    console.print(
        screen.table(["step", "record" if len(found.first) == found.wrong else "the first records"], found.first)
    )
    verb = "Put right" if done else "Wrong"
    console.print(f"\n{verb} for {found.wrong:,} of {found.records:,} records.")
    if not done:
        _print_dry(console, "db rebuild --yes")


def _print_dry(console: Console, arguments: str) -> None:
    console.print(Text(f"\n{NOTHING_CHANGED.format(command=screen.command(arguments))}", "dim"))


def _bytes(count: int) -> str:
    if count >= 1000 * MEGABYTE:
        return f"{count / (1000 * MEGABYTE):,.1f} GB"
    return f"{count / MEGABYTE:,.1f} MB" if count >= MEGABYTE else f"{count / 1000:,.1f} kB"
