"""Find what `presswork run NAME` runs: a flow file flows/NAME.py, or else the template NAME by itself.

A flow file is recognised, and the templates that it names are found, by reading its source: loading it loads
Prefect, and mistakes should be told before that.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from flows.commands.terminal.endings import faults_of
from flows.engine.options import RunOptions
from flows.errors import ConfigurationError, ParameterError
from flows.settings import ROOT, Settings
from flows.steps.prompts.templates import list_templates, load_template

FLOWS = ROOT / "flows"
GENERIC = "content"
"""The flow that runs any template; it is run by the template's name."""


class UnknownJobError(ConfigurationError):
    """There is no flow and no template of this name."""


@dataclass(frozen=True)
class Job:
    """A flow or a template to be run. `templates` are those that it names, `selected` those that it selects by."""

    name: str
    kind: typing.Literal["flow", "template"]
    templates: tuple[str, ...]
    selected: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """A job with its values: `start()` runs it under Prefect; `values` are those of its templates' params."""

    job: Job
    values: Mapping[str, Any]
    start: Callable[[], Awaitable[Any]] = field(repr=False)


def find_job(name: str, settings: Settings) -> Job:
    """Find what NAME stands for; UnknownJobError says what there is."""
    source = read_flow(FLOWS / f"{name}.py", name) if name.isidentifier() and name != GENERIC else None
    if source is not None:
        selected = _named(source, "select")
        return Job(name, "flow", tuple(dict.fromkeys((*selected, *_named(source, "generate")))), selected)
    known = list_templates(settings.templates_dir)
    if name in known:
        return Job(name, "template", (name,), (name,))
    flows = list_flows()
    near = difflib.get_close_matches(name.replace("-", "_"), [*flows, *known], n=1)
    raise UnknownJobError(
        f"There is no flow and no template {name!r}"
        + (f"; did you mean {near[0]!r}?" if near else ".")
        + f" Flows: {', '.join(flows) or 'none'}. Templates in {settings.templates_dir.name}/: "
        f"{', '.join(known) or 'none'}."
    )


def list_flows() -> list[str]:
    """Name the flow files."""
    files = sorted(FLOWS.glob("*.py"))
    return [file.stem for file in files if file.stem != GENERIC and read_flow(file, file.stem) is not None]


def read_flow(file: Path, name: str) -> ast.Module | None:
    """Parse a file if it defines a Prefect flow of this name; one that is no Python is a ConfigurationError."""
    if not file.is_file():
        return None
    try:
        tree = ast.parse(file.read_bytes(), file.name)
    except SyntaxError as error:
        raise ConfigurationError(f"flows/{file.name}, line {error.lineno}: {error.msg}.") from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return tree if any(_is_flow(decorator) for decorator in node.decorator_list) else None
    return None


def bind_template(job: Job, settings: Settings, sets: Mapping[str, Any], options: RunOptions, title: str = "") -> Call:
    """Give a template its params; `title` stands before the flow run's name. Raises ParameterError."""
    values = load_template(settings.templates_dir, job.name).parse_params(sets)

    def start() -> Awaitable[Any]:
        from flows.content import content  # noqa: PLC0415 - loads Prefect

        # What was typed, not what it was parsed to: Prefect keeps parameters as JSON.
        found: Awaitable[Any] = _titled(content, title)(job.name, dict(sets), options)
        return found

    return Call(job, values, start)


def bind_flow(job: Job, sets: Mapping[str, Any], options: RunOptions, title: str = "") -> Call:
    """Load a flow and give it its selection; `title` stands before the flow run's name.

    Raises ParameterError for a value that the selection does not take.
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
        raise ParameterError(f"The flow {job.name!r} takes no --set: it has no `selection` parameter.")
    if "options" in parameters:
        given["options"] = options
    elif options != RunOptions():
        raise ParameterError(f"The flow {job.name!r} takes no options: it has no `options` parameter.")
    return Call(job, values, lambda: flow(**given))


def make_selection(flow: str, model: type[BaseModel], sets: Mapping[str, Any]) -> BaseModel:
    """Validate `--set` values; an unknown name or a wrong value is a ParameterError that says what is taken."""
    unknown = sorted(set(sets) - set(model.model_fields))
    if unknown:
        takes = ", ".join(model.model_fields) or "no parameters"
        raise ParameterError(f"The flow {flow!r} has no parameter {unknown[0]!r}; it takes {takes}.")
    try:
        return model.model_validate(dict(sets))
    except ValidationError as error:
        name, _value, reason = next(faults_of(error))
        raise ParameterError(f"The parameter {name or 'the selection'!r} of the flow {flow!r}: {reason}.") from None


def make_options(given: Mapping[str, Any]) -> RunOptions:
    """Read the options of a run; one out of its bounds is a ParameterError by its flag's name."""
    try:
        return RunOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        name, value, reason = next(faults_of(error))
        raise ParameterError(f"--{name.replace('_', '-')} {value}: {reason}.") from None


def _load_flow(name: str) -> Any:
    try:
        module = importlib.import_module(f"flows.{name}")
    except ImportError as error:
        raise ConfigurationError(f"flows/{name}.py can't be loaded: {error}.") from error
    return getattr(module, name)


def _titled(flow: Any, title: str) -> Any:
    named = flow.flow_run_name
    return flow.with_options(flow_run_name=title + (named if isinstance(named, str) else flow.name)) if title else flow


def _is_flow(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (isinstance(called, ast.Name) and called.id == "flow") or (
        isinstance(called, ast.Attribute) and called.attr == "flow"
    )


def _named(tree: ast.Module, method: str) -> tuple[str, ...]:
    """The texts that stand first in calls of a method: `run.select("product_copy", ...)`."""
    found = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == method
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]
    return tuple(dict.fromkeys(found))
