"""Read what is rehearsed before anything starts: its templates, what the ledgers know of their answers, its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from db.readers.past_answers import PastAnswers
from flows.commands.ledger.ledgers import first_url, ledger_name, ledger_urls
from flows.commands.rehearsal.forecast import read_history
from flows.commands.run.jobs import Job
from flows.commands.terminal import screen
from flows.engine.options import RunOptions
from flows.engine.resources.preflight import NoRecordsYetError
from flows.settings import Settings
from flows.steps.prompts.templates import Template, load_template

if TYPE_CHECKING:
    from flows.commands.rehearsal.terms import Terms


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


def read_rehearsal(
    settings: Settings, job: Job, values: Mapping[str, str], options: RunOptions, *, sandbox: bool
) -> Rehearsal:
    """Read it; NoRecordsYetError where there is nothing to select from."""
    templates = {name: load_template(settings.templates_dir, name) for name in job.templates}
    ledgers = ledger_urls(settings, sandbox=sandbox)
    source = None
    if not settings.source_url and any(templates[name].front.source is None for name in job.selected):
        source = first_url(settings, sandbox=sandbox)
        if not ledgers:
            raise NoRecordsYetError(source)
    history, pasts = read_history(ledgers, job.name, list(templates.values()), settings.endpoint) or (None, {})
    return Rehearsal(job, values, options, templates, history, pasts, source)


def print_terms(console: Console, rehearsal: Rehearsal, terms: Terms) -> None:
    """Say what is rehearsed, and on which terms."""
    title = f"Rehearsal of {rehearsal.job.name}: the sandbox answers, into a ledger that is thrown away."
    console.print(screen.data(title, "bold"))
    facts = terms.facts(ledger_name(rehearsal.history or ""))
    if rehearsal.source:
        facts.append(("records", f"from {ledger_name(rehearsal.source)}, which is only read"))
    screen.print_facts(console, facts, indent=2)
