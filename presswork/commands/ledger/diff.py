"""Show what differs between two generations, or between two versions of a template."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Console
from rich.text import Text
from sqlalchemy import Engine

from db.readers.audit.compared_generations import (
    ComparedGeneration,
    TemplateSources,
    find_previous,
    find_previous_version,
    read_compared,
    read_template_sources,
)
from db.readers.audit.filters import FilterError, find_template
from db.words import TRY
from presswork.differences.json_differences import ValueDifference, compare_values
from presswork.differences.operations import CONTEXT
from presswork.errors import ConfigurationError
from presswork.escaping import visible
from presswork.terminal import screen
from presswork.terminal.audit_flags import DiffFlags
from presswork.terminal.difference_view import in_one, is_plain
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import NoLedgerError, find_by_id, first_with, ledger_urls

TEMPLATE: Final = "template"
SHOWN_CHANGES = 200
"""Changes on the screen; the others are in the JSON."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two that are compared: facts for programs, a line for people, and the value."""

    facts: Mapping[str, Any]
    title: str
    value: Any


def show_difference(command: CommandContext, flags: DiffFlags) -> None:
    """Print the difference between two generations or template versions."""
    read = _read_version if flags.of == TEMPLATE else _read_generation
    new = read(command, flags, flags.new or flags.old, previous=False)
    old = read(command, flags, flags.old, previous=flags.new is None)
    difference = compare_values(old.value, new.value)
    facts = {"of": flags.of, "a": old.facts, "b": new.facts, "equal": difference.is_equal}
    command.answer(
        {**facts, **difference_json(difference)}, lambda console: _print(console, flags, (old, new), difference)
    )


def difference_json(difference: ValueDifference) -> dict[str, Any]:
    """Return a difference as plain values: its changes, and the names of what is equal."""
    changes = [asdict(change) | {"place": change.place} for change in difference.changes]
    return {"changes": changes, "unchanged": difference.unchanged, "reordered": difference.reordered}


def _read_generation(command: CommandContext, flags: DiffFlags, asked: str, *, previous: bool) -> _Side:
    assert flags.of != TEMPLATE
    of, settings = flags.of, command.settings

    def read(ledger: Engine, identifier: str) -> ComparedGeneration | None:
        found = read_compared(ledger, identifier, of)
        if found is None or not previous:
            return found
        before = find_previous(ledger, found.id)
        if before is None:
            raise ConfigurationError(f"{found.id} is the first content of its record. Give two generations to compare.")
        return read_compared(ledger, before, of)

    _url, found = find_by_id(settings, read, "generation", asked, sandbox=flags.sandbox)
    if not found.has_value:
        raise ConfigurationError(f"The generation {found.id} ({found.status}) has no {of} to compare.")
    facts = asdict(found)
    del facts["value"], facts["has_value"]
    title = f"{found.id}  {found.record_key}, {found.flow}, {found.step}, {found.endpoint}, {found.status}"
    if found.trigger == TRY:
        title += ", a trial"
    return _Side(facts, f"{title}, {screen.moment(found.created_at)} UTC", found.value)


def _read_version(command: CommandContext, flags: DiffFlags, asked: str, *, previous: bool) -> _Side:
    def read(ledger: Engine) -> TemplateSources | None:
        found = read_template_sources(ledger, find_template(ledger, asked))
        if found is None or not previous:
            return found
        before = find_previous_version(ledger, found)
        if before is None:
            raise ConfigurationError(f"{found.hash} is the first version of {found.name!r}. Give two to compare.")
        return read_template_sources(ledger, before, found.name)

    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    if not urls:
        raise NoLedgerError
    # The last one's error is shown: it lists the versions that there are.
    earlier = first_with(urls[:-1], read, passing=(FilterError,))
    found = earlier or first_with(urls[-1:], read)
    if found is None:
        raise ConfigurationError(f"The sources of version {asked!r} are not stored: its step was made in code.")
    version = found[1]
    facts = {"name": version.name, "hash": version.hash, "first_seen_at": version.first_seen_at}
    title = f"{version.hash[:12]}  {version.name}, first used {screen.moment(version.first_seen_at)} UTC"
    return _Side(facts, title, dict(version.sources))


def _print(console: Console, flags: DiffFlags, sides: tuple[_Side, _Side], difference: ValueDifference) -> None:
    screen.print_facts(console, [("old", sides[0].title), ("new", sides[1].title)])
    if difference.is_equal:
        note = " Only the order of keys differs." if difference.reordered else ""
        console.print(f"\nThe {flags.of}s are equal.{note}")
        return
    for change in difference.changes[:SHOWN_CHANGES]:
        place = str(change.path[0]) if flags.of == TEMPLATE else change.place
        screen.section(console, f"{visible(place) or f'The whole {flags.of}'}: {change.kind}")
        text = in_one(change.operations, plain=is_plain(console), context=None if flags.whole else CONTEXT)
        console.print(text, soft_wrap=not console.is_terminal)
    if more := difference.changes[SHOWN_CHANGES:]:
        console.print(f"\n{len(more):,} more changes. Use --json for all of them.")
    if difference.unchanged:
        console.print(Text(f"\nEqual: {visible(', '.join(difference.unchanged))}", "dim"))
