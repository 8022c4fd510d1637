"""Run a rehearsal, and read from its ledger what it tells of the real run."""

from __future__ import annotations

from pathlib import Path

from db.database_errors import SelectError
from db.ledger.clock import now
from db.readers.failures import losses, troubles
from db.readers.past_answers import spent_by_step
from flows.commands.ledger.ledgers import opened
from flows.commands.rehearsal.forecast import forecast
from flows.commands.rehearsal.isolation import isolated
from flows.commands.rehearsal.preparing import Rehearsal
from flows.commands.rehearsal.rehearsed import Rehearsed
from flows.commands.rehearsal.terms import Terms
from flows.commands.run.running import prepare, run_call
from flows.commands.terminal.endings import CommandContext
from flows.commands.terminal.quiet_prefect import prefect_api
from flows.engine.report.summary import Summary
from flows.engine.resources.preflight import where_it_read
from flows.errors import StoppedError
from flows.settings import load_settings
from flows.steps.prompts.templates import load_template

TITLE = "rehearsal of "


def run_rehearsal(rehearsal: Rehearsal, terms: Terms, command: CommandContext, *, keep: bool) -> Rehearsed:
    """Run it against a sandbox and into a ledger of its own, which is kept with `keep`."""
    with isolated(terms.switches, rehearsal.source, keep=keep) as ledger:
        settings = load_settings()
        try:
            call = prepare(rehearsal.job, settings, rehearsal.values, rehearsal.options, TITLE)
        except SelectError as error:
            where = f" {where_it_read(rehearsal.source)}" if rehearsal.source else ""
            raise SelectError(f"{error}{where}") from None
        try:
            with prefect_api(settings, say=not command.as_json):
                summary = run_call(call, command)
        except StoppedError:
            raise StoppedError("The rehearsal was stopped. Nothing was billed.") from None
        return _look_back(rehearsal, terms, summary, ledger, settings.templates_dir, keep=keep)


def _look_back(
    rehearsal: Rehearsal, terms: Terms, summary: Summary, ledger: str, folder: Path, *, keep: bool
) -> Rehearsed:
    with opened(ledger) as engine:
        return Rehearsed(
            summary=summary,
            terms=terms,
            steps=forecast(
                spent_by_step(engine, summary.run_id),
                rehearsal.pasts,
                # A flow may name a template in ways that its source does not show.
                lambda step: (rehearsal.templates.get(step) or load_template(folder, step)).front.max_tokens,
                now().date(),
            ),
            troubles=troubles(engine, summary.run_id),
            losses=losses(engine, summary.run_id),
            history=rehearsal.history,
            kept=ledger if keep else None,
        )
