"""Make the forms that people fill in to start a run: the JSON schema of a deployment's parameters.

Prefect makes a flow's form from its signature. A template's form is made here from the params in its front matter, so a
new template gets a form with types, defaults and choices, without any Python.
"""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from presswork.options import plainly
from presswork.output_classes.fields import TYPES
from presswork.prompts.front_matter import Param

Form = dict[str, Any]

PARAMS = "Params"


def polished(form: Form) -> Form:
    """Give a form's parameters readable titles instead of their Python names, and remove empty defaults."""
    made = copy.deepcopy(form)
    plainly(made)
    for name, field in made.get("properties", {}).items():
        field["title"] = _title(name)
        if "$ref" in field:
            # The fields' own defaults are the same, and leave an empty field empty.
            field.pop("default", None)
    return made


def form_of_template(params: Mapping[str, Param], content: Form) -> Form:
    """Make a template's form: the form of the flow `content`, with this template fixed and its params typed."""
    made = polished(content)
    fields = made["properties"]
    fields.pop("template")
    given = fields.pop("params")
    if params:
        fields["params"] = {
            "$ref": f"#/definitions/{PARAMS}",
            "title": "Params",
            "position": given["position"],
        }
        made.setdefault("definitions", {})[PARAMS] = {
            "title": "Params",
            "type": "object",
            "description": "Values for the template's select.",
            "properties": {name: _field(name, param, place) for place, (name, param) in enumerate(params.items())},
            "required": [name for name, param in params.items() if param.required],
            "additionalProperties": False,
        }
    required = [] if all(not param.required for param in params.values()) else ["params"]
    return {**made, "required": required}


def _field(name: str, param: Param, position: int) -> Form:
    kind: Any = TypeAdapter[Any](TYPES[param.type]).json_schema()
    if param.choices:
        kind = {**kind, "enum": [_plain(choice) for choice in param.choices]}
    made: Form = {"title": param.title or _title(name), "position": position}
    if param.description:
        made["description"] = param.description
    if param.nullable and not param.required and param.type == "bool":
        # As in `plainly`: Prefect's form sends false for a plain switch that was not touched.
        return {**made, "anyOf": [kind, {"type": "null"}], "default": None}
    if param.required or param.nullable:
        # The server rejects a default of null for a type without null. Without a default, it accepts null.
        return {**made, **kind}
    return {**made, **kind, "default": _plain(param.default)}


def _plain(value: Any) -> Any:
    return TypeAdapter(Any).dump_python(value, mode="json")


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
