"""The templates of a run, and what all prompts of a step share: made ready once, and kept in the ledger.

A step is rendered with the values of the select that its materials come from. They stand on the handles: a run may
select with `kind=tea` and with `kind=coffee`, and what comes from the one must not be rendered with the other's. A
handle has one select behind it, however many steps lie between, so there is never a choice to make.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
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
    """Reads each template once: `template` returns one, or raises TemplateError. `keep` writes one into the ledger."""

    def __init__(self, folder: Path, endpoint: RunEndpoint, keep: Callable[[TemplateRow], Awaitable[None]]) -> None:
        self.template: Callable[[str], Template] = cache(partial(load_template, folder))
        self.endpoint = endpoint
        self._keep = keep
        self._briefs: dict[str, Brief] = {}

    async def brief(self, name: str, selected: Mapping[str, Any]) -> Brief:
        """Return the brief of a step whose materials were `selected` with these values."""
        template = self.template(name)
        params = params_of_step(template, selected)
        brief = self._briefs.get(name)
        if brief is None or brief.params != params:
            # In a thread, for the SDK, which takes seconds to load, makes the schema.
            brief = await asyncio.to_thread(make_brief, template, self.endpoint.name, params)
            self._briefs[name] = brief
            sources = dict(template.sources)
            await self._keep(TemplateRow(hash=template.hash, name=name, sources=sources, first_seen_at=now()))
            self.endpoint.uses(brief)
        return brief


def check_templates(folder: Path, source: FlowSource) -> list[Template]:
    """Read every template that the flow's code names: a later step's mistake must not show when the first is paid.

    TemplateError where a step generates, by plain text, with a template that there is not.
    """
    known = list_templates(folder)
    # A data frame has a `select` too: what is no template may be its column.
    named = [name for name in source.templates(known) if name in known or name in source.generates]
    templates = [load_template(folder, name) for name in named]
    for template in templates:
        template.schema  # noqa: B018 - asking for the schema is the check
    return templates


def params_of_step(template: Template, selected: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template's params: as its materials were selected, by name, else their defaults.

    ParameterError where one without a default was not among those of the select.
    """
    params = template.front.params
    missing = [name for name, param in params.items() if param.required and name not in selected]
    if missing:
        raise ParameterError(
            f"The template {template.name!r} needs the parameter {missing[0]!r}, and the select that it works on has "
            f"none of this name. Declare it in that select's template too, or give it a default in {template.file}."
        )
    return {name: selected.get(name, param.default) for name, param in params.items()}
