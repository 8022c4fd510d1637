"""Run one job from its values to its summary, with all that is checked before and shown meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from flows.commands.run.jobs import Call, Job, bind_flow, bind_template
from flows.commands.run.watching import Watcher, watching
from flows.commands.terminal import screen
from flows.commands.terminal.endings import CommandContext
from flows.commands.terminal.quiet_prefect import hush
from flows.engine.options import RunOptions
from flows.engine.report.summary import Summary
from flows.engine.resources.preflight import check_ledger, check_select, given_params, name_endpoint, require_credential
from flows.errors import ConfigurationError, StoppedError, TemplateError
from flows.settings import Settings, source_url
from flows.steps.prompts.lint import Finding, errors_that_stop, lint_template
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
        _raise_first(name, errors_that_stop(lint_template(settings.templates_dir, name, schema=False)))
        source_url(settings, template.front.source)
    call = bind_template(job, settings, sets, options, title) if job.kind == "template" else None
    for template in templates.values():
        _ = template.schema
    endpoint = asyncio.run(name_endpoint(settings, templates.values()))
    if call is None:
        hush()
        call = bind_flow(job, sets, options, title)
    for name in job.selected:
        check_select(settings, templates[name], given_params(templates[name], call.values), endpoint)
    check_ledger(settings, endpoint)
    return call


def _raise_first(name: str, errors: Sequence[Finding]) -> None:
    if errors:
        more = f" (and {len(errors) - 1} more: `presswork templates lint {name}`)" if len(errors) > 1 else ""
        raise TemplateError(f"{errors[0]}{more}")


def run_call(call: Call, command: CommandContext) -> Summary:
    """Run a job under the Prefect API that is set up; `command` learns the run's id as soon as there is one.

    Raises StoppedError where Ctrl-C or another signal ended it, and whatever else stopped the run.
    """
    from prefect.exceptions import Abort  # noqa: PLC0415 - loads Prefect

    with watching(show=not command.as_json) as watcher:
        try:
            result = asyncio.run(_started(call))
        except Abort as stop:
            raise StoppedError(f"{stop}{_so_far(watcher)}") from None
        finally:
            command.run_id = watcher.run_id
    if not isinstance(result, Summary):
        raise ConfigurationError(
            f"The flow {call.job.name!r} ran, but returned {type(result).__name__} and no Summary: end it with "
            "`return run.summary()`."
        )
    return result


def _so_far(watcher: Watcher) -> str:
    if watcher.progress is None or watcher.run_id is None:
        return ""
    counts = ", ".join(watcher.counts()) or "nothing"
    return f" So far: {counts}; `presswork history {screen.short(watcher.run_id)}` shows it."


async def _started(call: Call) -> object:
    result = call.start()
    return await result if asyncio.iscoroutine(result) else result
