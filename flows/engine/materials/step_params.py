"""Parameters: the values that a step is rendered with, which are those of the select that its materials come from.

They stand on the handles: a run may select with `kind=tea` and with `kind=coffee`, and what comes from the one must
not be rendered with the other's. A handle has one select behind it, however many steps lie between, so there is never
a choice to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.errors import ParameterError
from flows.steps.prompts.templates import Template


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
