"""Look up a run to resume, and check a job against the ledger and the source, without loading Prefect."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from db.readers.figures import find_run
from db.readers.runs import read_run
from db.words import TRY
from presswork.engine.resources.preflight import (
    check_ledger,
    check_select,
    given_params,
    name_endpoint,
    require_credential,
)
from presswork.errors import TrialError
from presswork.jobs.named_jobs import Call, Job, bind_flow, bind_template
from presswork.options import RunOptions
from presswork.prompts.lint import load_sound
from presswork.settings import Settings, source_url
from presswork.terminal.ledgers import find_by_id


@dataclass(frozen=True)
class ResumedRun:
    """A run to resume: its flow, the values of its parameters and its options."""

    run_id: str
    flow: str
    sets: Mapping[str, Any]
    options: Mapping[str, Any]


def find_resumed(settings: Settings, run_id: str) -> ResumedRun:
    """Find a run in any ledger. Raises ConfigurationError if none has it."""
    _url, found = find_by_id(settings, read_resumed, "run", run_id)
    return found


def read_resumed(ledger: Engine, run_id: str) -> ResumedRun | None:
    """Find a run by its id, or a unique part of it; None if the ledger does not have it. Raises TrialError."""
    line = find_run(ledger, run_id)
    row = read_run(ledger, line.id) if line is not None else None
    if row is None:
        return None
    if row["trigger"] == TRY:
        raise TrialError
    parameters: Mapping[str, Any] = row["parameters"]
    options: Mapping[str, Any] = parameters.get("options") or {}
    return ResumedRun(
        run_id=row["id"],
        flow=row["flow"],
        # Not as text: null, a boolean or a list would become another value.
        sets=dict(parameters.get("selection") or parameters.get("params") or {}),
        # A refresh is resumed as a refresh; it does not request again what it has generated since it began.
        options={name: value for name, value in options.items() if name not in {"resumes", "helper"}},
    )


def prepare(
    job: Job,
    settings: Settings,
    sets: Mapping[str, Any],
    options: RunOptions,
    title: str = "",
    begin: Callable[[], None] = lambda: None,
) -> Call:
    """Check all that can be checked before Prefect starts, and return the call that is ready to run.

    `title` is put before the flow run's name in Prefect. `begin` is called after the quickest checks: what it starts
    may start while the others go on. Raises ConfigurationError, StoppingCallError or db.database_errors.DatabaseError,
    before any request is sent.
    """
    # The quickest checks come first: the SDK and Prefect take seconds to load.
    require_credential()
    templates = {name: load_sound(settings.templates_dir, name) for name in job.templates}
    for template in templates.values():
        source_url(settings, template.front.source)
    call = bind_template(job, settings, sets, options, title) if job.kind == "template" else None
    begin()
    for template in templates.values():
        _ = template.schema
    endpoint = asyncio.run(name_endpoint(settings, templates.values()))
    if call is None:
        call = bind_flow(job, sets, options, title)
    for name in job.selected:
        check_select(settings, templates[name], given_params(templates[name], call.values), endpoint)
    check_ledger(settings, endpoint)
    return call
