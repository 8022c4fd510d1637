"""Make an output class's JSON schema, and find what the API can't take of it before any request is sent.

The SDK's own transformation, which claude/output_schema.py calls, passes that on, or makes of it something else than
was meant. What it would drop is written so that it does not: limits by bounds.py, words next to a reference by
references.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.errors import PydanticUserError

from flows.errors import OutputClassError
from flows.steps.output_classes.bounds import SchemaWithBounds
from flows.steps.output_classes.references import reached, walk, write_out
from flows.steps.output_classes.validate import OutputClass

_TYPED = frozenset({"type", "anyOf", "oneOf", "allOf", "const", "enum", "$ref"})
_FREE_KEYS = ("additionalProperties", "patternProperties", "propertyNames")


def full_schema(output_class: OutputClass) -> dict[str, Any]:
    """Return the schema of all that pydantic checks; OutputClassError where the API can't take it, or there is none.

    It is made to go through the SDK's transformation, which drops what stands next to a reference.
    """
    name = output_class.__name__
    try:
        schema = output_class.model_json_schema(schema_generator=SchemaWithBounds)
    except (PydanticUserError, ValueError, TypeError, LookupError, NameError) as error:
        raise OutputClassError(f"The output class {name!r} has no JSON schema: {_first_line(error)}.") from None
    definitions = schema.get("$defs", {})
    for definition in definitions:
        if definition in reached(definitions[definition], definitions):
            raise OutputClassError(
                f"The API can't take the output class {name!r}: {definition!r} contains itself. "
                "Nest to a fixed depth instead."
            )
    for path, node in walk(schema):
        where = ".".join(path) or "it"
        if _is_mapping(node):
            raise OutputClassError(
                f"The API can't take the output class {name!r}: {where} is a mapping with free keys, which "
                "would come back empty. Use a list of objects with a name and a value."
            )
        for field in _untyped(node):
            raise OutputClassError(
                f"The API can't take the output class {name!r}: {'.'.join([*path, *field])} may be anything, and the "
                "API needs a type. Give it one, such as `str` or `list[str]`."
            )
    return write_out(schema)


def _is_mapping(node: dict[str, Any]) -> bool:
    return node.get("type") == "object" and not node.get("properties") and any(node.get(label) for label in _FREE_KEYS)


def _untyped(node: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the fields of a node, and an empty name for a list's items, that pydantic says no type of."""
    properties = node.get("properties", {})
    inner = [([name], field) for name, field in properties.items()] if isinstance(properties, dict) else []
    for name, field in [*inner, ([], node.get("items"))]:
        if isinstance(field, dict) and not _TYPED & field.keys():
            yield name


def _first_line(error: Exception) -> str:
    # pydantic adds a link to its documentation.
    return str(error).partition("\n")[0].rstrip(".")
