"""Find the job that `presswork run NAME` runs: the flow in flows/NAME.py, or else the template NAME.

A flow's templates are found by reading its source (flow_source.py). Importing it would load Prefect, and mistakes
should be reported before that.
"""

import importlib
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from presswork.errors import ConfigurationError, ParameterError
from presswork.options import RunOptions
from presswork.prompts.flow_source import FLOWS, GENERIC, list_flows, read_flow
from presswork.prompts.names import near_name
from presswork.prompts.templates import list_templates, load_template
from presswork.settings import Settings
from presswork.terminal.endings import faults_of
from presswork.terminal.flags import RehearseFlags, RunFlags


class UnknownJobError(ConfigurationError):
    """There is no flow and no template with this name."""


@dataclass(frozen=True)
class Job:
    """A flow or a template to run. It names `templates`, and selects records with those in `selected`."""

    name: str
    kind: typing.Literal["flow", "template"]
    templates: tuple[str, ...]
    selected: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """A job with the values of its templates' params; `start()` runs it under Prefect."""

    job: Job
    values: Mapping[str, Any]
    start: Callable[[], Awaitable[Any]] = field(repr=False)


def find_job(name: str, settings: Settings) -> Job:
    """Find a job by name. Raises UnknownJobError, which lists the names that exist."""
    source = read_flow(FLOWS / f"{name}.py", name) if name.isidentifier() and name != GENERIC else None
    known = list_templates(settings.templates_dir)
    if source is not None:
        return Job(name, "flow", source.templates(known), source.selects)
    if name in known:
        return Job(name, "template", (name,), (name,))
    flows = list_flows(FLOWS)
    raise UnknownJobError(
        f"There is no flow or template {name!r}.{near_name(name, [*flows, *known])} "
        f"Available flows: {', '.join(flows) or 'none'}. Available templates: {', '.join(known) or 'none'}."
    )


def bind_template(job: Job, settings: Settings, sets: Mapping[str, Any], options: RunOptions, title: str = "") -> Call:
    """Give a template its params; `title` is put before the flow run's name. Raises ParameterError."""
    values = load_template(settings.templates_dir, job.name).parse_params(sets)
    # The values as typed, because Prefect keeps parameters as JSON.
    return Call(job, values, lambda: _titled(_load_flow(GENERIC), title)(job.name, dict(sets), options))


def bind_flow(job: Job, sets: Mapping[str, Any], options: RunOptions, title: str = "") -> Call:
    """Load a flow and give it its selection; `title` is put before the flow run's name.

    Raises ParameterError for a value that the selection does not accept.
    """
    flow = _titled(_load_flow(job.name), title)
    hints = typing.get_type_hints(flow.fn)
    parameters = inspect.signature(flow.fn).parameters
    given: dict[str, Any] = {}
    values: Mapping[str, Any] = {}
    model = hints.get("selection") if "selection" in parameters else None
    if isinstance(model, type) and issubclass(model, BaseModel):
        selection = make_selection(job.name, model, sets)
        given["selection"] = selection
        values = selection.model_dump(mode="json", exclude_none=True)
    elif sets:
        raise ParameterError(f"The flow {job.name!r} accepts no --set: it has no `selection` parameter.")
    if "options" in parameters:
        given["options"] = options
    elif options != RunOptions():
        raise ParameterError(f"The flow {job.name!r} accepts no options: it has no `options` parameter.")
    return Call(job, values, lambda: flow(**given))


def make_selection(flow: str, model: type[BaseModel], sets: Mapping[str, Any]) -> BaseModel:
    """Validate `--set` values. Raises ParameterError for an unknown name or a wrong value."""
    unknown = sorted(set(sets) - set(model.model_fields))
    if unknown:
        available = ", ".join(model.model_fields) or "none"
        raise ParameterError(f"The flow {flow!r} has no parameter {unknown[0]!r}. Available: {available}.")
    try:
        return model.model_validate(dict(sets))
    except ValidationError as error:
        name, _value, reason = next(faults_of(error))
        raise ParameterError(
            f"The parameter {name or 'the selection'!r} of the flow {flow!r} is wrong: {reason}."
        ) from None


def given_options(flags: RunFlags | RehearseFlags) -> dict[str, Any]:
    """Return the flags that are options of a run, by name."""
    return {name: value for name, value in vars(flags).items() if name in RunOptions.model_fields}


def make_options(given: Mapping[str, Any]) -> RunOptions:
    """Read the options of a run. Raises ParameterError, with the flag's name, for a value out of bounds."""
    try:
        return RunOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        name, value, reason = next(faults_of(error))
        raise ParameterError(f"--{name.replace('_', '-')} {value} is wrong: {reason}.") from None


def _load_flow(name: str) -> Any:
    try:
        module = importlib.import_module(f"flows.{name}")
    except ImportError as error:
        raise ConfigurationError(f"flows/{name}.py can't be imported: {error}.") from error
    return getattr(module, name)


def _titled(flow: Any, title: str) -> Any:
    named = flow.flow_run_name
    return flow.with_options(flow_run_name=title + (named if isinstance(named, str) else flow.name)) if title else flow
