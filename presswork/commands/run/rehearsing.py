"""Run a rehearsal under Prefect, and print the estimate of the real run."""

from db.clock import now
from db.readers.failures import losses, troubles
from db.readers.past_answers import spent_by_step
from presswork.commands.run.rehearse import ReadyRehearsal
from presswork.commands.run.running import run_call
from presswork.errors import StoppedError
from presswork.prompts.templates import load_template
from presswork.rehearsal.forecast import forecast
from presswork.rehearsal.rehearsed import Rehearsed, print_rehearsed
from presswork.report.summary import Summary
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import opened
from presswork.terminal.quiet_prefect import prefect_api


def run_rehearsal(command: CommandContext, ready: ReadyRehearsal) -> int:
    """Run it and print the result; return the exit status of its summary."""
    try:
        with prefect_api(ready.settings, ready.server, say=not command.as_json):
            summary = run_call(ready.call, command)
    except StoppedError:
        raise StoppedError("The rehearsal was stopped. Nothing was billed.") from None
    rehearsed = _read(ready, summary)
    command.answer(rehearsed.for_programs(), lambda console: print_rehearsed(console, rehearsed))
    return rehearsed.summary.exit_status


def _read(ready: ReadyRehearsal, summary: Summary) -> Rehearsed:
    """Read the rehearsal's ledger, and forecast the real run from it."""
    rehearsal = ready.rehearsal

    def max_tokens(step: str) -> int:
        # A flow's source does not always show which templates it names.
        return (rehearsal.templates.get(step) or load_template(ready.settings.templates_dir, step)).front.max_tokens

    with opened(ready.ledger) as engine:
        return Rehearsed(
            summary=summary,
            terms=ready.terms,
            steps=forecast(spent_by_step(engine, summary.run_id), rehearsal.pasts, max_tokens, now().date()),
            troubles=troubles(engine, summary.run_id),
            losses=losses(engine, summary.run_id),
            history=rehearsal.history,
            kept=ready.ledger if ready.keep else None,
        )
