"""Wanted: deployments as they should be, from prefect.yaml and from the templates; no server is asked here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values

from db.words import TAG
from flows.control.automations import HEARTBEAT_S, HEARTBEAT_VARIABLE
from flows.control.declared import FILE, Declared, Limit
from flows.control.forms import Form, form_of_template, polished
from flows.control.refused import reason
from flows.engine.orchestration.deployed import LEDGER_LABEL, ledger_name
from flows.errors import ConfigurationError
from flows.settings import Settings
from flows.steps.prompts.names import template_name_fault
from flows.steps.prompts.templates import list_templates, load_template

CONTENT = "content"
CONTENT_ENTRYPOINT = "flows.content.content"
PULL_STEPS: list[dict[str, Any]] = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
"""Those of prefect.yaml: a run starts where its worker puts it, and loads the package that is installed there."""


@dataclass(frozen=True)
class Wanted:
    """A deployment as it should be."""

    flow: str
    name: str
    entrypoint: str
    description: str | None
    tags: list[str]
    parameters: dict[str, Any]
    form: Form
    enforce: bool
    schedules: list[DeploymentScheduleCreate]
    limit: Limit | None
    job_variables: dict[str, Any]

    @property
    def full_name(self) -> str:
        """The name by which Prefect's command knows it."""
        return f"{self.flow}/{self.name}"


def of_declared(declared: Declared, settings: Settings) -> Wanted:
    """Say what a deployment of prefect.yaml should be; ConfigurationError where its flow can't be loaded."""
    # `{{ $NAME }}` is an environment variable here as it is for `prefect deploy`.
    declared = Declared.model_validate(apply_values(declared.model_dump(), dict(os.environ), remove_notset=False))
    flow = _load(declared.entrypoint)
    return Wanted(
        flow=flow.name,
        name=declared.name,
        entrypoint=declared.entrypoint,
        description=declared.description or flow.description,
        tags=declared.tags,
        parameters=declared.parameters,
        form=polished(_form(flow)),
        enforce=declared.enforce_parameter_schema,
        schedules=[schedule.built() for schedule in declared.schedules],
        limit=declared.concurrency_limit,
        job_variables=_marked(settings, declared.work_pool.job_variables if declared.work_pool else {}),
    )


def of_templates(settings: Settings, left_out: dict[str, str]) -> Iterator[Wanted]:
    """Say what each template's deployment should be; one with a mistake goes to `left_out`, with the mistake."""
    flow = _load(CONTENT_ENTRYPOINT)
    form = _form(flow)
    names = list_templates(settings.templates_dir)
    for name in names:
        try:
            front = load_template(settings.templates_dir, name).front
        except Exception as error:  # noqa: BLE001 - the boundary of one template: whatever is wrong with it is its own
            left_out[name] = reason(error)
            continue
        if front.select is None:
            continue
        if fault := template_name_fault(name, names):
            left_out[name] = fault
            continue
        yield Wanted(
            flow=flow.name,
            name=name,
            entrypoint=CONTENT_ENTRYPOINT,
            description=front.description or f"Generates the content of the template {name}.",
            tags=[TAG, "template"],
            parameters={"template": name},
            form=form_of_template(front.params, form),
            enforce=True,
            schedules=[],
            limit=None,
            job_variables=_marked(settings, {}),
        )


def _load(entrypoint: str) -> Any:
    try:
        return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except (Exception, SystemExit) as error:
        # Whatever a flow file raises when it is loaded is a mistake in it, or in its name.
        raise ConfigurationError(f"{FILE}: {entrypoint!r} can't be loaded: {type(error).__name__}: {error}.") from error


def _form(flow: Any) -> Form:
    return parameter_schema(flow).model_dump(exclude_unset=True)


def _marked(settings: Settings, job_variables: dict[str, Any]) -> dict[str, Any]:
    env = job_variables.get("env") or {}
    return {
        **job_variables,
        "env": {HEARTBEAT_VARIABLE: str(HEARTBEAT_S), **env, LEDGER_LABEL: ledger_name(settings)},
    }
