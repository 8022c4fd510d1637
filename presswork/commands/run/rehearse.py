"""`presswork rehearse`: a run at full size against the sandbox, into a ledger that is thrown away."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console

from db.clock import now
from db.database_errors import SelectError
from db.readers.failures import losses, troubles
from db.readers.past_answers import PastAnswers, spent_by_step
from presswork.engine.resources.preflight import NoRecordsYetError, where_it_read
from presswork.errors import StoppedError
from presswork.jobs.checking import prepare
from presswork.jobs.named_jobs import Job, find_job, given_options, make_options
from presswork.options import RunOptions
from presswork.prompts.templates import Template, load_template
from presswork.rehearsal.forecast import forecast, read_history
from presswork.rehearsal.isolation import isolated
from presswork.rehearsal.rehearsed import Rehearsed, print_rehearsed
from presswork.rehearsal.terms import Terms, make_terms
from presswork.settings import Settings, load_settings
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import RehearseFlags, parse_sets
from presswork.terminal.ledgers import first_url, ledger_name, ledger_urls, opened


@dataclass(frozen=True)
class Rehearsal:
    """What is rehearsed; `source` is the user's ledger, where records come from it.

    `pasts` is what the answers of each template took, by its name, and `history` the ledger in which that stands.
    """

    job: Job
    values: Mapping[str, str]
    options: RunOptions
    templates: Mapping[str, Template]
    history: str | None
    pasts: Mapping[str, PastAnswers]
    source: str | None


def rehearse(command: CommandContext, flags: RehearseFlags) -> int:
    """Rehearse what is named; return the exit status of its summary."""
    values, options, settings = parse_sets(flags.sets), make_options(given_options(flags)), command.settings
    rehearsal = _read(settings, find_job(flags.name, settings), values, options, sandbox=flags.sandbox)
    terms = make_terms(rehearsal.pasts, flags)
    if not command.as_json:
        _print_terms(screen.err(), rehearsal, terms)
    rehearsed = _run(rehearsal, terms, command, keep=flags.keep)
    command.answer(rehearsed.for_programs(), lambda console: print_rehearsed(console, rehearsed))
    return rehearsed.summary.exit_status


def _read(settings: Settings, job: Job, values: Mapping[str, str], options: RunOptions, *, sandbox: bool) -> Rehearsal:
    """Read what is rehearsed before anything starts; NoRecordsYetError where there is nothing to select from."""
    templates = {name: load_template(settings.templates_dir, name) for name in job.templates}
    ledgers = ledger_urls(settings, sandbox=sandbox)
    source = None
    if not settings.source_url and any(templates[name].front.source is None for name in job.selected):
        source = first_url(settings, sandbox=sandbox)
        if not ledgers:
            raise NoRecordsYetError(source)
    history, pasts = read_history(ledgers, job.name, list(templates.values()), settings.endpoint) or (None, {})
    return Rehearsal(job, values, options, templates, history, pasts, source)


def _print_terms(console: Console, rehearsal: Rehearsal, terms: Terms) -> None:
    """Say what is rehearsed, and on which terms."""
    title = f"Rehearsal of {rehearsal.job.name}: the sandbox answers, into a ledger that is thrown away."
    console.print(screen.data(title, "bold"))
    facts = terms.facts(ledger_name(rehearsal.history or ""))
    if rehearsal.source:
        facts.append(("records", f"from {ledger_name(rehearsal.source)}, which is only read"))
    screen.print_facts(console, facts, indent=2)


def _run(rehearsal: Rehearsal, terms: Terms, command: CommandContext, *, keep: bool) -> Rehearsed:
    """Run it against a sandbox and into a ledger of its own, and read from that what it tells of the real run."""
    with isolated(terms.switches, rehearsal.source, keep=keep) as ledger:
        settings = load_settings()
        try:
            call = prepare(rehearsal.job, settings, rehearsal.values, rehearsal.options, "rehearsal of ")
        except SelectError as error:
            where = f" {where_it_read(rehearsal.source)}" if rehearsal.source else ""
            raise SelectError(f"{error}{where}") from None

        from presswork.commands.run.running import run_call  # noqa: PLC0415 - loads Prefect
        from presswork.terminal.quiet_prefect import prefect_api  # noqa: PLC0415 - as above

        try:
            with prefect_api(settings, say=not command.as_json):
                summary = run_call(call, command)
        except StoppedError:
            raise StoppedError("The rehearsal was stopped. Nothing was billed.") from None

        def max_tokens(step: str) -> int:
            # A flow may name a template in ways that its source does not show.
            return (rehearsal.templates.get(step) or load_template(settings.templates_dir, step)).front.max_tokens

        with opened(ledger) as engine:
            return Rehearsed(
                summary=summary,
                terms=terms,
                steps=forecast(spent_by_step(engine, summary.run_id), rehearsal.pasts, max_tokens, now().date()),
                troubles=troubles(engine, summary.run_id),
                losses=losses(engine, summary.run_id),
                history=rehearsal.history,
                kept=ledger if keep else None,
            )
