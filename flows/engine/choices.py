"""Choices: what a form lets a person choose from, read when the form is made.

Apart from options.py, because these look into the templates' folder: a deployment's form shows what was there when it
was deployed, and a run checks again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from flows.settings import load_settings
from flows.steps.prompts.front_matter import FrontMatter
from flows.steps.prompts.templates import read_heads


class Help:
    """A parameter's help in the form: Prefect puts the parameter's name where pydantic would have a title."""

    def __init__(self, description: str) -> None:
        self.description = description

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add it to the schema, which is what the form is made of."""
        return {**handler(core), "description": self.description}


class Templates:
    """A choice of the templates that can run by themselves."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add them to the schema; without any, a text stays a text."""
        names = list(selecting_templates(load_settings().templates_dir))
        return {**handler(core), **({"enum": names} if names else {})}


TemplateName = Annotated[str, Templates(), Help("Which template: its select says which records.")]


def selecting_templates(folder: Path) -> dict[str, FrontMatter]:
    """Find the templates that select their own records; one that can't be read is left out."""
    heads = read_heads(folder)
    return {name: head for name, head in heads if isinstance(head, FrontMatter) and head.select is not None}
