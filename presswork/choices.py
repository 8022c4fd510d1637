"""Choices: what a form lets a person choose from, read when the form is made.

Apart from options.py, because these look into the templates' folder: a deployment's form shows what was there when it
was deployed, and a run checks again.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.templates import read_heads
from presswork.settings import load_settings


class Help:
    """A parameter's help in the form: Prefect puts the parameter's name where pydantic would have a title.

    `choices` lists what a person may choose from; where there is nothing, any text may be given.
    """

    def __init__(self, description: str, choices: Callable[[], Iterable[str]] = list) -> None:
        self.description = description
        self.choices = choices

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add it to the schema, which is what the form is made of."""
        names = list(self.choices())
        return {**handler(core), **({"enum": names} if names else {}), "description": self.description}


def selecting_templates(folder: Path) -> dict[str, FrontMatter]:
    """Find the templates that select their own records; one that can't be read is left out."""
    heads = read_heads(folder)
    return {name: head for name, head in heads if isinstance(head, FrontMatter) and head.select is not None}


TemplateName = Annotated[
    str,
    Help("Which template: its select says which records.", lambda: selecting_templates(load_settings().templates_dir)),
]
"""A choice of the templates that can run by themselves."""
