"""Plan the deployments from prefect.yaml and the templates, without a server.

There is one for each deployment that prefect.yaml declares, and for each template that selects its own records and is
no step of a declared flow. The plan has the reason for each one that can't be made; a reason has no value of a setting.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from httpx import HTTPStatusError, Response
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.exceptions import PrefectException
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values
from pydantic import ValidationError

from db.words import SHARDS, TAG
from presswork.engine.orchestration.origin import LEDGER_LABEL, ledger_label
from presswork.engine.orchestration.running_code import code_version
from presswork.errors import ConfigurationError
from presswork.operate.automations import HEARTBEAT_VARIABLE, PREFECT_HEARTBEAT_S
from presswork.operate.forms import Form, form_of_template, polished
from presswork.operate.prefect_yaml import FILE, Declared, read_declared
from presswork.prompts.flow_source import FLOWS, GENERIC, read_flow, short_path
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.names import template_name_fault
from presswork.prompts.templates import list_templates, load_template
from presswork.settings import ROOT, Settings

CONTENT_ENTRYPOINT = "flows.content.content"
PULL_STEPS: list[dict[str, Any]] = [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
"""As in prefect.yaml: a run starts in the folder that its worker chose, and loads the package installed there."""


@dataclass(frozen=True)
class DeploymentSpec:
    """A planned deployment; the fields that Prefect stores have Prefect's names."""

    flow: str
    name: str
    entrypoint: str
    description: str | None
    tags: list[str]
    parameters: dict[str, Any]
    parameter_openapi_schema: Form
    job_variables: dict[str, Any]
    enforce_parameter_schema: bool = True
    schedules: list[DeploymentScheduleCreate] = field(default_factory=list)
    concurrency_limit: int | None = None
    concurrency_options: dict[str, Any] | None = None
    version: str = field(default_factory=code_version)
    pull_steps: list[dict[str, Any]] = field(default_factory=lambda: PULL_STEPS)

    @property
    def full_name(self) -> str:
        """Its name in Prefect's command."""
        return f"{self.flow}/{self.name}"

    def facts(self, pool: str) -> dict[str, Any]:
        """Return everything that Prefect stores, except its name and its schedules."""
        own = {name: value for name, value in vars(self).items() if name not in {"flow", "name", "schedules"}}
        return {**own, "work_pool_name": pool}


@dataclass
class DeploymentPlan:
    """The deployments to make and those that can't be made, each by its name.

    - `specs`: the deployments to make.
    - `left_out`: templates with a mistake, or that may be a step of a flow that can't be loaded, with the reason.
    - `refused`: declared deployments whose flow can't be loaded, with the reason.
    - `covered`: templates that are steps, each with its declared flows.
    - `undeclared`: flows that are not in prefect.yaml, each with its templates, which keep their own deployments.
    - `unreadable`: flow files that can't be read, with the reason.
    """

    specs: dict[str, DeploymentSpec] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    covered: dict[str, list[str]] = field(default_factory=dict)
    undeclared: dict[str, list[str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def plan_deployments(settings: Settings, file: Path) -> DeploymentPlan:
    """Plan the deployments of prefect.yaml and of the templates; ConfigurationError for a mistake in prefect.yaml."""
    plan = DeploymentPlan()
    declared = read_declared(file)
    for one in declared:
        try:
            spec = _of_declared(one, settings)
        except Exception as error:  # noqa: BLE001 - the boundary of one deployment: a flow's file is the user's
            plan.refused[f"{one.entrypoint}/{one.name}"] = reason(error)
        else:
            plan.specs[spec.full_name] = spec
    _plan_templates(plan, settings, [one.entrypoint for one in declared])
    return plan


def _plan_templates(plan: DeploymentPlan, settings: Settings, entrypoints: list[str]) -> None:
    form = _form(_load(CONTENT_ENTRYPOINT))
    names = list_templates(settings.templates_dir)
    declared = dict.fromkeys(map(_located, entrypoints))
    made = dict.fromkeys(_located(spec.entrypoint) for spec in plan.specs.values())
    covering = _flows_by_template(plan, made, names)
    refused = _flows_by_template(plan, [flow for flow in declared if flow not in made], names)
    # Only declared flows have steps here, so only a declared flow that can't be read can hide one.
    hidden = list(plan.unreadable)
    drafts = [(file, file.stem) for file in sorted(FLOWS.glob("*.py"))]
    drafted = _flows_by_template(plan, [flow for flow in drafts if flow not in declared], names)
    taken = {*plan.specs, *(f"{name}{SHARDS}" for name in plan.specs)}
    for name in names:
        try:
            front = load_template(settings.templates_dir, name).front
        except Exception as error:  # noqa: BLE001 - the boundary of one template: its mistake must not stop the others
            plan.left_out[name] = reason(error)
            continue
        full_name = f"{GENERIC}/{name}"
        if front.select is None:
            continue
        unsure = " or ".join(refused.get(name, hidden))
        if full_name in plan.specs and (name in covering or unsure):
            continue
        if name in covering:
            plan.covered[name] = covering[name]
        elif unsure:
            said = f"It may be a step of {unsure}, which can't be loaded. Its deployment on the server stays."
            plan.left_out[name] = said
        elif fault := template_name_fault(name, names):
            plan.left_out[name] = fault
        elif full_name in taken:
            plan.left_out[name] = f"{FILE} already has a deployment {full_name!r}. Rename the template's file."
        else:
            plan.specs[full_name] = _of_template(name, front, form, settings)
            for flow in drafted.get(name, []):
                plan.undeclared.setdefault(flow, []).append(name)


def _flows_by_template(
    plan: DeploymentPlan, flows: Iterable[tuple[Path, str]], names: list[str]
) -> dict[str, list[str]]:
    """Return which of these flows name each template; add the files that can't be read to the plan."""
    found: dict[str, list[str]] = {}
    for file, flow in flows:
        try:
            source = read_flow(file, flow)
        except (ConfigurationError, OSError, ValueError) as error:
            plan.unreadable[short_path(file)] = reason(error)
            continue
        for name in source.templates(names) if source else ():
            found.setdefault(name, []).append(flow)
    return found


def _located(entrypoint: str) -> tuple[Path, str]:
    """Find the file of an entrypoint's flow, without importing it; the path of a missing file if there is none."""
    *module, flow = entrypoint.split(".")
    files = (Path(folder, *module).with_suffix(".py") for folder in [str(ROOT), *sys.path])
    return next(filter(Path.is_file, files), ROOT), flow


def _of_template(name: str, front: FrontMatter, form: Form, settings: Settings) -> DeploymentSpec:
    return DeploymentSpec(
        flow=GENERIC,
        name=name,
        entrypoint=CONTENT_ENTRYPOINT,
        description=front.description or f"Generates the content of the template {name}.",
        tags=[TAG, "template"],
        parameters={"template": name},
        parameter_openapi_schema=form_of_template(front.params, form),
        job_variables=_marked(settings, {}),
    )


def _of_declared(declared: Declared, settings: Settings) -> DeploymentSpec:
    """Raise ConfigurationError if its flow can't be loaded."""
    # `{{ $NAME }}` is an environment variable, as in `prefect deploy`.
    declared = Declared.model_validate(apply_values(declared.model_dump(), dict(os.environ), remove_notset=False))
    flow, limit = _load(declared.entrypoint), declared.concurrency_limit
    return DeploymentSpec(
        flow=flow.name,
        name=declared.name,
        entrypoint=declared.entrypoint,
        description=declared.description or flow.description,
        tags=declared.tags,
        parameters=declared.parameters,
        parameter_openapi_schema=polished(_form(flow)),
        enforce_parameter_schema=declared.enforce_parameter_schema,
        schedules=[schedule.built() for schedule in declared.schedules],
        concurrency_limit=limit.limit if limit else None,
        concurrency_options=limit.model_dump(exclude={"limit"}) if limit else None,
        job_variables=_marked(settings, declared.work_pool.job_variables if declared.work_pool else {}),
    )


def _load(entrypoint: str) -> Any:
    try:
        return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except (Exception, SystemExit) as error:
        # Any error from loading a flow file is a mistake in the file, or in its name.
        raise ConfigurationError(f"{FILE}: {entrypoint!r} can't be loaded: {type(error).__name__}: {error}.") from error


def _form(flow: Any) -> Form:
    return parameter_schema(flow).model_dump(exclude_unset=True)


def _marked(settings: Settings, job_variables: dict[str, Any]) -> dict[str, Any]:
    own = job_variables.get("env") or {}
    env = {HEARTBEAT_VARIABLE: str(PREFECT_HEARTBEAT_S), **own, LEDGER_LABEL: ledger_label(settings)}
    return {**job_variables, "env": env}


def concerns_all(error: Exception) -> bool:
    """Whether the server is unavailable or refuses the key, so that every other deployment would fail too."""
    response = _response(error)
    if response is None:
        return not isinstance(error, PrefectException | ValueError | TypeError | ConfigurationError)
    return response.status_code == 401


def reason(error: Exception) -> str:
    """Return why a deployment can't be made, without the request in Prefect's error: it has secrets."""
    if isinstance(error, ConfigurationError):
        return str(error)
    response = _response(error)
    if response is not None:
        return f"Prefect's server refuses it (HTTP {response.status_code}){_said(response)}."
    if isinstance(error, ValidationError):
        return f"Prefect refuses it: {_faults(list(error.errors(include_url=False, include_input=False)))}."
    return f"{type(error).__name__}: {str(error).rstrip('.')}."


def _response(error: Exception) -> Response | None:
    cause = getattr(error, "http_exc", None) or error
    return cause.response if isinstance(cause, HTTPStatusError) else None


def _said(response: Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = None
    match body:
        case {"detail": str(detail)}:
            return f": {detail.rstrip('.')}"
        case {"exception_detail": list(faults)}:
            return f": {_faults(faults)}"
    return ""


def _faults(faults: list[Any]) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault.get('loc', ())))}: {fault.get('msg')}" for fault in faults if isinstance(fault, dict)
    )
