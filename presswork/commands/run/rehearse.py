"""Begin `presswork rehearse`: read the job and its history, start the sandbox and check the job against it."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console

from db.database_errors import SelectError
from db.readers.past_answers import PastAnswers
from presswork.commands.run.begun_server import beginning, command_server
from presswork.engine.resources.preflight import NoRecordsYetError, where_it_read
from presswork.jobs.checking import prepare
from presswork.jobs.named_jobs import Call, Job, find_job, given_options, make_options
from presswork.operate.command_server.server_context import CommandServer
from presswork.options import RunOptions
from presswork.prompts.templates import Template, load_template
from presswork.rehearsal.forecast import read_history
from presswork.rehearsal.isolation import isolated
from presswork.rehearsal.terms import Terms, make_terms
from presswork.settings import Settings, load_settings
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import RehearseFlags, parse_sets
from presswork.terminal.ledgers import first_url, ledger_name, ledger_urls


@dataclass(frozen=True)
class Rehearsal:
    """The job to rehearse; `source` is the user's ledger if the records come from it.

    `pasts` has the past answers of each template, by its name, and `history` is the ledger that holds them.
    """

    job: Job
    values: Mapping[str, str]
    options: RunOptions
    templates: Mapping[str, Template]
    history: str | None
    pasts: Mapping[str, PastAnswers]
    source: str | None


@dataclass(frozen=True)
class ReadyRehearsal:
    """A rehearsal whose sandbox runs: the checked call, its settings, its Prefect server and its ledger."""

    rehearsal: Rehearsal
    terms: Terms
    settings: Settings
    call: Call
    server: CommandServer
    ledger: str
    keep: bool


def begin_rehearsal(command: CommandContext, flags: RehearseFlags) -> ReadyRehearsal:
    """Read the job to rehearse, isolate this process from the API and the user's ledger, and check the job."""
    values, options, settings = parse_sets(flags.sets), make_options(given_options(flags)), command.settings
    rehearsal = _read(settings, find_job(flags.name, settings), values, options, sandbox=flags.sandbox)
    terms = make_terms(rehearsal.pasts, flags)
    if not command.as_json:
        _print_terms(screen.err(), rehearsal, terms)
    ledger = command.hold(isolated(terms.switches, rehearsal.source, keep=flags.keep))
    settings = load_settings()
    server = command.hold(command_server(command))
    try:
        call = prepare(rehearsal.job, settings, values, options, "rehearsal of ", beginning(server, settings))
    except SelectError as error:
        where = f" {where_it_read(rehearsal.source)}" if rehearsal.source else ""
        raise SelectError(f"{error}{where}") from None
    return ReadyRehearsal(rehearsal, terms, settings, call, server, ledger, flags.keep)


def _read(settings: Settings, job: Job, values: Mapping[str, str], options: RunOptions, *, sandbox: bool) -> Rehearsal:
    """Read the templates and their history. Raises NoRecordsYetError if there is nothing to select from."""
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
    """Print the terms of the rehearsal."""
    title = f"Rehearsal of {rehearsal.job.name}: the sandbox answers, and the ledger is temporary."
    console.print(screen.data(title, "bold"))
    facts = terms.facts(ledger_name(rehearsal.history or ""))
    if rehearsal.source:
        facts.append(("records", f"from {ledger_name(rehearsal.source)}, read-only"))
    screen.print_facts(console, facts, indent=2)
