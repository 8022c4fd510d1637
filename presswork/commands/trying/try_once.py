"""Try a template once, or two versions of it, and print each answer as it arrives."""

import asyncio

from rich.console import Console

from db.words import SUCCEEDED
from presswork.commands.trying.try_json import changes_json, trial_json
from presswork.commands.trying.try_line import live_line
from presswork.commands.trying.try_record import print_record, print_system
from presswork.commands.trying.try_sides import print_sides
from presswork.commands.trying.try_template import AskedTrials
from presswork.commands.trying.try_totals import print_totals
from presswork.report.summary import HAS_ALL, LACKS_SOME, MET_CAP
from presswork.terminal.endings import CommandContext
from presswork.trying.sessions import TrySession
from presswork.trying.trials import FIRST_RECORDS, TRIAL_CAP_USD, Asked, Trial, TriedRecord
from presswork.trying.versions import open_version


def try_template(command: CommandContext, asked: AskedTrials) -> int:
    """Ask about the records, print what came of each, and return the exit status."""
    if asked.flags.watch:
        from presswork.commands.trying.try_watch import watch_template  # noqa: PLC0415 - loads what watches files

        return watch_template(command, asked)
    return asyncio.run(_against(command, asked) if asked.flags.against else _once(command, asked))


def asked_of(asked: AskedTrials) -> Asked:
    """Say to a session what the flags ask for."""
    flags = asked.flags
    return Asked(
        template=flags.name,
        keys=tuple(flags.keys or ()),
        limit=flags.limit or FIRST_RECORDS,
        sets=asked.values,
        inputs_of=flags.run,
        max_cost=TRIAL_CAP_USD if flags.max_cost is None else flags.max_cost,
        refresh=flags.refresh,
    )


def exit_status(trial: Trial) -> int:
    """Return the exit status of a trial, as that of a run."""
    if trial.stopped is not None:
        return MET_CAP
    return HAS_ALL if all(record.status == SUCCEEDED for record in trial.records) and not trial.missing else LACKS_SOME


async def _once(command: CommandContext, asked: AskedTrials) -> int:
    to_try = asked_of(asked)
    async with TrySession(command.settings) as session:
        with live_line(say=not command.as_json) as (line, console):
            line.ask(len(to_try.keys) or to_try.limit)
            printed: list[TriedRecord] = []

            def tell(record: TriedRecord) -> None:
                line.one_ended()
                if not command.as_json:
                    _print_next(console, record, is_first=not printed)
                printed.append(record)

            trial = await session.run(to_try, on_record=tell)
    command.run_id = trial.run_id
    command.answer(trial_json(trial), lambda console: print_totals(console, trial, asked))
    return exit_status(trial)


def _print_next(console: Console, record: TriedRecord, *, is_first: bool) -> None:
    if is_first:
        print_system(console, record)
    print_record(console, record)


async def _against(command: CommandContext, asked: AskedTrials) -> int:
    """Try the other version first: its answers are mostly in the ledger."""
    to_try, against = asked_of(asked), asked.flags.against
    assert against is not None
    async with TrySession(command.settings) as session:
        with (
            live_line(say=not command.as_json) as (line, _console),
            open_version(command.settings, to_try.template, against) as (folder, label),
        ):
            line.ask(2 * (len(to_try.keys) or to_try.limit))
            old = await session.run(to_try, templates_dir=folder, on_record=lambda _record: line.one_ended())
            new = await session.run(to_try, on_record=lambda _record: line.one_ended())
    command.run_id = new.run_id
    answer = {"against": label, "old": trial_json(old), "new": trial_json(new), "changes": changes_json(old, new)}
    command.answer(answer, lambda console: print_sides(console, old, new, label))
    return exit_status(new)
