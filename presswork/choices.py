"""List a form field's choices when the form is made.

These choices are read from the templates' folder, so they are not in options.py. A deployment's form shows the
templates that were there when it was deployed; a run checks again.
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
    """A parameter's help in the form. Prefect uses the parameter's name as its title.

    `choices` lists the allowed values. If it returns none, any text is allowed.
    """

    def __init__(self, description: str, choices: Callable[[], Iterable[str]] = list) -> None:
        self.description = description
        self.choices = choices

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the help to the schema from which Prefect makes the form."""
        names = list(self.choices())
        return {**handler(core), **({"enum": names} if names else {}), "description": self.description}


def selecting_templates(folder: Path) -> dict[str, FrontMatter]:
    """Find the templates that select their own records. Unreadable templates are left out."""
    heads = read_heads(folder)
    return {name: head for name, head in heads if isinstance(head, FrontMatter) and head.select is not None}


TemplateName = Annotated[
    str,
    Help(
        "The template to run. Its select gives the records.", lambda: selecting_templates(load_settings().templates_dir)
    ),
]
"""A template that can run by itself."""
