"""Make an output class's JSON schema, and find what the API can't take of it before any request is sent.

The SDK's own transformation, which claude/output_schema.py calls, passes that on, or makes of it something else than
was meant. What it would drop is written so that it does not: limits by bounds.py, words next to a reference by
references.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.errors import PydanticUserError

from flows.errors import OutputClassError
from flows.steps.output_classes.bounds import SchemaWithBounds
from flows.steps.output_classes.references import Schema, reached, walk, write_out
from flows.steps.output_classes.validate import OutputClass

_TYPED = frozenset({"type", "anyOf", "oneOf", "allOf", "const", "enum", "$ref"})
_FREE_KEYS = ("additionalProperties", "patternProperties", "propertyNames")


def full_schema(output_class: OutputClass) -> Schema:
    """Return the schema of all that pydantic checks; OutputClassError where the API can't take it, or there is none.

    It is made to go through the SDK's transformation, which drops what stands next to a reference.
    """
    try:
        schema = output_class.model_json_schema(schema_generator=SchemaWithBounds)
    except (PydanticUserError, ValueError, TypeError, LookupError, NameError) as error:
        reason = _first_line(error)
        raise OutputClassError(f"The output class {output_class.__name__!r} has no JSON schema: {reason}.") from None
    for why in _refusals(schema):
        raise refused_class(output_class, why)
    return write_out(schema)


def refused_class(output_class: OutputClass, why: str) -> OutputClassError:
    """Make the error that says why the API can't take a class."""
    return OutputClassError(f"The API can't take the output class {output_class.__name__!r}: {why}")


def _refusals(schema: Schema) -> Iterator[str]:
    definitions = schema.get("$defs", {})
    for definition in definitions:
        if definition in reached(definitions[definition], definitions):
            yield f"{definition!r} contains itself. Nest to a fixed depth instead."
    for path, node in walk(schema):
        if _is_mapping(node):
            yield (
                f"{'.'.join(path) or 'it'} is a mapping with free keys, which would come back empty. Use a list of "
                "objects with a name and a value."
            )
        for field in _untyped(node):
            yield (
                f"{'.'.join([*path, *field])} may be anything, and the API needs a type. Give it one, such as `str` or "
                "`list[str]`."
            )


def _is_mapping(node: Schema) -> bool:
    return node.get("type") == "object" and not node.get("properties") and any(node.get(label) for label in _FREE_KEYS)


def _untyped(node: Schema) -> Iterator[list[str]]:
    """Yield the fields of a node, and an empty name for a list's items, that pydantic says no type of."""
    properties = node.get("properties", {})
    inner = [([name], field) for name, field in properties.items()] if isinstance(properties, dict) else []
    for name, field in [*inner, ([], node.get("items"))]:
        if isinstance(field, dict) and not _TYPED & field.keys():
            yield name


def _first_line(error: Exception) -> str:
    # pydantic adds a link to its documentation.
    return str(error).partition("\n")[0].rstrip(".")
