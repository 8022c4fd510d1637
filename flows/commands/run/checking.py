"""Check all that can be checked of a job before Prefect is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from flows.commands.run.jobs import Call, Job, bind_flow, bind_template
from flows.engine.options import RunOptions
from flows.engine.resources.preflight import check_ledger, check_select, given_params, name_endpoint, require_credential
from flows.errors import TemplateError
from flows.settings import Settings, source_url
from flows.steps.prompts.lint import errors_that_stop, lint_template
from flows.steps.prompts.templates import load_template


def prepare(job: Job, settings: Settings, sets: Mapping[str, Any], options: RunOptions, title: str = "") -> Call:
    """Check all that can be checked before Prefect starts, and return the call that is ready to run.

    `title` stands before the flow run's name in Prefect.

    Raises ConfigurationError, StoppingCallError or db.database_errors.DatabaseError; nothing has been sent then.
    """
    # What is found quickest comes first: the SDK and Prefect take seconds to load.
    require_credential()
    templates = {name: load_template(settings.templates_dir, name) for name in job.templates}
    for name, template in templates.items():
        errors = errors_that_stop(lint_template(settings.templates_dir, name, schema=False))
        if errors:
            more = f" (and {len(errors) - 1} more: `presswork templates lint {name}`)" if len(errors) > 1 else ""
            raise TemplateError(f"{errors[0]}{more}")
        source_url(settings, template.front.source)
    call = bind_template(job, settings, sets, options, title) if job.kind == "template" else None
    for template in templates.values():
        _ = template.schema
    endpoint = asyncio.run(name_endpoint(settings, templates.values()))
    if call is None:
        call = bind_flow(job, sets, options, title)
    for name in job.selected:
        check_select(settings, templates[name], given_params(templates[name], call.values), endpoint)
    check_ledger(settings, endpoint)
    return call
