"""Try a template once, and print each answer as it arrives."""

from rich.console import Console

from presswork.commands.trying.try_json import trial_json
from presswork.commands.trying.try_line import Telling, live_line
from presswork.commands.trying.try_record import print_record, print_system
from presswork.commands.trying.try_stop import stopped_as_trial
from presswork.commands.trying.try_template import AskedTrials
from presswork.commands.trying.try_totals import exit_status, print_totals
from presswork.terminal.endings import CommandContext
from presswork.trying.sessions import TrySession
from presswork.trying.trials import TriedRecord


async def ask_once(command: CommandContext, asked: AskedTrials) -> int:
    """Ask about the records, print what came of each, and return the exit status."""
    async with TrySession(command.settings) as session:
        with live_line(say=not command.as_json) as (line, console):
            line.follow(lambda: session.doing)
            line.ask(asked.most_records, asked.to_try.keys)
            printed: list[TriedRecord] = []

            def tell(record: TriedRecord) -> None:
                line.one_ended(record.key)
                if not command.as_json:
                    _print_next(console, record, is_first=not printed)
                printed.append(record)

            with stopped_as_trial(session, printed):
                trial = await session.run(asked.to_try, on_record=Telling(tell))
    command.run_id = trial.run_id
    command.answer(trial_json(trial), lambda console: print_totals(console, trial, asked))
    return exit_status(trial)


def _print_next(console: Console, record: TriedRecord, *, is_first: bool) -> None:
    if is_first:
        print_system(console, record)
    print_record(console, record)
