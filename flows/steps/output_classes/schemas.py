"""Schemas: what the API can't take of an output class's JSON schema, found before any request is sent.

The SDK's own transformation (complete.py calls it) passes these on, or makes of them something else than was meant.
What it would drop is written so that it does not: limits by bounds.py, words next to a reference by references.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.errors import PydanticUserError

from flows.errors import OutputClassError
from flows.steps.output_classes.bounds import SchemaWithBounds
from flows.steps.output_classes.references import write_out
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
        if definition in _reached_from(definition, definitions):
            raise OutputClassError(
                f"The API can't take the output class {name!r}: {definition!r} contains itself. "
                "Nest to a fixed depth instead."
            )
    for path, node in _walk(schema, ()):
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


def _reached_from(definition: str, definitions: dict[str, Any]) -> set[str]:
    reached: set[str] = set()
    waiting = [definition]
    while waiting:
        for _path, node in _walk(definitions[waiting.pop()], ()):
            reference = node.get("$ref")
            name = reference.rpartition("/")[2] if isinstance(reference, str) else None
            if name in definitions and name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield each part of a schema, with the names of the fields that lead to it."""
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, path)
    elif isinstance(node, dict):
        yield path, node
        for label, item in node.items():
            if label in {"properties", "$defs"} and isinstance(item, dict):
                for field, inner in item.items():
                    yield from _walk(inner, (*path, field))
            else:
                yield from _walk(item, path)


def _first_line(error: Exception) -> str:
    # pydantic adds a link to its documentation.
    return str(error).partition("\n")[0].rstrip(".")
