"""Load a run's templates and build each step's brief, the part that all its prompts share, once.

A step is rendered with the parameter values of the select behind its materials. The handles carry these values: a run
may select with `kind=tea` and with `kind=coffee`, and must not mix them up. Every handle goes back to exactly one
select, even over many steps, so the values are never ambiguous.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from db.clock import now
from db.ledger.rows import TemplateRow
from presswork.engine.resources.endpoint import RunEndpoint
from presswork.errors import ParameterError
from presswork.prompts.flow_source import FlowSource
from presswork.prompts.render import Brief, make_brief
from presswork.prompts.templates import Template, list_templates, load_template


class Briefs:
    """Loads each template once, unless it is among `checked`; `keep` writes a template into the ledger."""

    def __init__(
        self,
        folder: Path,
        checked: Iterable[Template],
        endpoint: RunEndpoint,
        keep: Callable[[TemplateRow], Awaitable[None]],
    ) -> None:
        self._folder = folder
        self._templates = {template.name: template for template in checked}
        self.endpoint = endpoint
        self._keep = keep
        self._briefs: dict[str, Brief] = {}

    def template(self, name: str) -> Template:
        """Return a template; raises TemplateError."""
        if name not in self._templates:
            self._templates[name] = load_template(self._folder, name)
        return self._templates[name]

    async def brief(self, name: str, selected: Mapping[str, Any]) -> Brief:
        """Return the brief of a step whose materials were `selected` with these values."""
        template = self.template(name)
        params = params_of_step(template, selected)
        brief = self._briefs.get(name)
        if brief is None or brief.params != params:
            # In a thread, because the SDK makes the schema and takes seconds to load.
            brief = await asyncio.to_thread(make_brief, template, self.endpoint.name, params)
            self._briefs[name] = brief
            sources = dict(template.sources)
            await self._keep(TemplateRow(hash=template.hash, name=name, sources=sources, first_seen_at=now()))
            self.endpoint.uses(brief)
        return brief


def check_templates(folder: Path, source: FlowSource) -> list[Template]:
    """Load every template that the flow's code names, so that a mistake in a later step shows before the first is paid.

    Raises TemplateError if a template is wrong, or if `generate` names, as a literal string, one that does not exist.
    """
    known = list_templates(folder)
    # A data frame has a `select` too, so a name that is not a template may be a column.
    named = [name for name in source.templates(known) if name in known or name in source.generates]
    templates = [load_template(folder, name) for name in named]
    for template in templates:
        # Making the schema is a check too.
        _ = template.schema
    return templates


def params_of_step(template: Template, selected: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template's parameter values: those of the select behind its materials, else the defaults.

    Raises ParameterError if a parameter without a default is missing in that select.
    """
    params = template.front.params
    missing = [name for name, param in params.items() if param.required and name not in selected]
    if missing:
        raise ParameterError(
            f"The template {template.name!r} needs the parameter {missing[0]!r}, but the template that selects its "
            f"records does not declare it. Declare it there too, or give it a default in {template.file}."
        )
    return {name: selected.get(name, param.default) for name, param in params.items()}
