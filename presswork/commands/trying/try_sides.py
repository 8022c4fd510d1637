"""Try two versions of a template on the same records, and print them: next to each other if there is room."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from db.database_errors import DatabaseError
from db.readers.audit.filters import FilterError
from db.words import SUCCEEDED
from presswork.commands.trying.try_changes import AROUND, print_change, print_prompt_change, reads_other
from presswork.commands.trying.try_fields import MOST_FIELDS, WHOLE, answer_rows, clipped, value_in_full, value_text
from presswork.commands.trying.try_json import changes_json, trial_json
from presswork.commands.trying.try_line import live_line
from presswork.commands.trying.try_record import (
    cost_in_words,
    ending_of,
    figures_of,
    key_in_words,
    print_record,
    print_system,
)
from presswork.commands.trying.try_stop import stopped_as_trial
from presswork.commands.trying.try_template import AskedTrials
from presswork.commands.trying.try_totals import exit_status, print_totals, print_warnings
from presswork.differences.json_differences import compare_values
from presswork.differences.operations import Operation
from presswork.differences.text_differences import compare_texts
from presswork.errors import ConfigurationError, ParameterError, PressworkError
from presswork.settings import Settings
from presswork.terminal import screen
from presswork.terminal.difference_view import in_one, is_plain, new_side, old_side
from presswork.terminal.endings import STOPPED_KIND, CommandContext, describe
from presswork.terminal.ledgers import ledger_urls, opened
from presswork.trying.sessions import TrySession
from presswork.trying.trials import LABEL_HASH, Trial, TriedRecord
from presswork.trying.versions import GIT, OpenedVersion, open_version

THIS = "this version"
WIDE_ENOUGH = 110
"""Columns of a terminal from which on two answers fit next to each other."""


async def compare_versions(command: CommandContext, asked: AskedTrials, against: str) -> int:
    """Try this version, which chooses the records, and then the other; return the exit status of this one."""
    with ExitStack() as stack:
        version = _opened_version(stack, command.settings, asked, against)
        line, _console = stack.enter_context(live_line(say=not command.as_json))
        line.ask(2 * asked.most_records)
        told: list[TriedRecord] = []

        def tell(record: TriedRecord) -> None:
            line.one_ended(record.key)
            told.append(record)

        old: Trial | Exception
        session = TrySession(command.settings)
        line.follow(lambda: session.doing)
        async with session:
            with stopped_as_trial(session, told):
                new = await session.run(asked.to_try, on_record=tell)
            try:
                with stopped_as_trial(session, told):
                    old = await session.run(version.fitted(asked.to_try), templates_dir=version.folder, on_record=tell)
            except (PressworkError, DatabaseError) as error:
                old = error
    command.run_id = new.run_id
    other = {"label": version.label, "note": version.note}
    if isinstance(old, Exception):
        return _show_one(command, asked, new, other, old)
    answer = {"against": other, "old": trial_json(old), "new": trial_json(new), "changes": changes_json(old, new)}
    # The cap is that of both.
    whole = replace(new, stopped=new.stopped or old.stopped)
    command.answer(answer, lambda console: print_sides(console, old, whole, version))
    return exit_status(whole)


def _show_one(command: CommandContext, asked: AskedTrials, new: Trial, other: dict[str, Any], error: Exception) -> int:
    """Show this version, whose answers are paid for, and why the other can't be asked; return the error's status."""
    if not command.as_json:
        console = screen.out()
        for record in new.records[:1]:
            print_system(console, record)
        for record in new.records:
            print_record(console, record)
        print_totals(console, new, asked)
    status, kind, message = describe(error)
    if kind != STOPPED_KIND:
        message = f"The version {other['label']} can't be asked: {message}"
    command.fail(message, kind, against=other, old=None, new=trial_json(new), changes=[])
    return status


def _opened_version(stack: ExitStack, settings: Settings, asked: AskedTrials, against: str) -> OpenedVersion:
    """Open a version of git, or one that a ledger has; the error of the last ledger lists the versions there are."""
    if not against.removeprefix(GIT).strip():
        raise ParameterError(
            "--against takes the hash of a version, or its beginning, or git: and a revision, such as git:HEAD. "
            f"`{screen.command(f'templates history {asked.flags.name}')}` lists the hashes."
        )
    urls = [] if against.startswith(GIT) else ledger_urls(settings, sandbox=asked.flags.sandbox)

    def enter(url: str | None) -> OpenedVersion:
        ledger = None if url is None else stack.enter_context(opened(url))
        return stack.enter_context(open_version(settings.templates_dir, ledger, asked.flags.name, against))

    for url in urls[:-1]:
        with suppress(FilterError, ConfigurationError):
            return enter(url)
    return enter(urls[-1] if urls else None)


def print_sides(console: Console, old: Trial, new: Trial, version: OpenedVersion) -> None:
    """Print both answers for each record, and what both versions cost; `version` is the older one."""
    _print_legend(console, version)
    befores = {record.key: record for record in old.records}
    changed = next(
        ((befores[now.key], now) for now in new.records if now.key in befores and reads_other(befores[now.key], now)),
        None,
    )
    if changed is None:
        console.print(Text("\nBoth versions give Claude the same prompts for these records.", "yellow"))
    else:
        console.print()
        print_prompt_change(console, *changed)
    is_wide = console.is_terminal and console.width >= WIDE_ENOUGH
    for now in new.records:
        before = befores.get(now.key)
        if is_wide and before is not None:
            _print_columns(console, before, now, version.label)
        else:
            print_change(console, before, now)
    _print_costs(console, old, new, version.label)
    print_warnings(console, new if new.note is not None else replace(new, note=old.note))


def _print_legend(console: Console, version: OpenedVersion) -> None:
    plain = is_plain(console)
    old, new = Operation("delete", version.label, ""), Operation("insert", "", THIS)
    console.print(Text.assemble("\nMarks: ", in_one([old], plain=plain), " ", in_one([new], plain=plain)))
    if version.note is not None:
        console.print(screen.data(version.note, "yellow"))


def _print_columns(console: Console, before: TriedRecord, now: TriedRecord, label: str) -> None:
    console.print()
    console.print(Text(key_in_words(now.key), "bold"))
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, header_style="dim")
    made.add_column("", style="cyan", max_width=24, overflow="fold")
    made.add_column(screen.data(label), ratio=1, overflow="fold")
    made.add_column(THIS, ratio=1, overflow="fold")
    for row in _column_rows(before, now, plain=is_plain(console)):
        made.add_row(*row)
    console.print(Padding(made, (0, 0, 0, 2)))


def _column_rows(before: TriedRecord, now: TriedRecord, *, plain: bool) -> list[tuple[Text, Text, Text]]:
    if isinstance(before.output, Mapping) and isinstance(now.output, Mapping):
        rows = [_field(name, before.output, now.output, plain=plain) for name in {**now.output, **before.output}]
    else:
        sides = [dict(answer_rows(each)) or {WHOLE: screen.data(each.error or each.status)} for each in (before, now)]
        names = dict.fromkeys((*sides[1], *sides[0]))
        rows = [(screen.data(name), sides[0].get(name, Text()), sides[1].get(name, Text())) for name in names]
    return [*rows[:MOST_FIELDS], (Text(), _figures(before), _figures(now))]


def _field(name: str, old: Mapping[str, Any], new: Mapping[str, Any], *, plain: bool) -> tuple[Text, Text, Text]:
    if name in old and name in new and compare_values(old[name], new[name]).is_equal:
        return screen.data(name), value_text(old[name]), Text("the same", "dim")
    texts = (value_in_full(side[name]) if name in side else "" for side in (old, new))
    operations = compare_texts(*texts)
    old_marked = old_side(operations, plain=plain, context=AROUND)
    return screen.data(name), clipped(old_marked), clipped(new_side(operations, plain=plain, context=AROUND))


def _figures(record: TriedRecord) -> Text:
    return Text(" · ".join([ending_of(record), *figures_of(record)]), "dim")


def _print_costs(console: Console, old: Trial, new: Trial, label: str) -> None:
    """Print what the answers of both took, whenever they were requested, and what was requested now."""
    sides = [_side(trial) for trial in (old, new)]
    console.print()
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_row("", screen.data(label, "dim"), Text(THIS, "dim"))
    for name in sides[0]:
        made.add_row(Text(name, "dim"), *(side[name] for side in sides))
    console.print(made)


def _side(trial: Trial) -> dict[str, str]:
    tokens = [record.answer_tokens for record in trial.records]
    costs = [record.answer_usd for record in trial.records]
    known = [cost for cost in costs if cost is not None]
    requests = f"{trial.requests:,}, {cost_in_words(trial.cost_usd)}" if trial.requests else "none"
    return {
        "version": trial.template_hash[:LABEL_HASH],
        "with content": f"{sum(record.status == SUCCEEDED for record in trial.records):,} of {len(trial.records):,}",
        "tokens in": f"{sum(each.input_tokens for each in tokens):,}",
        "tokens out": f"{sum(each.output_tokens for each in tokens):,}",
        "cost of these answers": cost_in_words(sum(known, Decimal(0)) if len(known) == len(costs) else None),
        "requests now": requests,
    }
