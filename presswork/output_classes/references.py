"""Keep a schema's keywords next to a `$ref`, and its positions of a tuple, through the SDK's transformation.

The SDK sends only the `$ref`: it drops the description, title, default and examples of a field whose type is an enum
or a nested class. The API's documentation allows no keyword next to a `$ref`, and no `allOf` with one. So if a field
has keywords, its type replaces the reference, and both descriptions are joined. A bare reference stays a reference.

The API does not support positions of an array. A tuple becomes a list whose items have any of the positions' types,
each with its number in its description.
"""

from collections.abc import Callable, Iterator
from typing import Any

JsonSchema = dict[str, Any]

_NAMED_PARTS = ("properties", "$defs")
_LISTED_PARTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAY_DIFFER = frozenset({"description", "title", "default", "examples", "deprecated"})


def write_out(schema: JsonSchema) -> JsonSchema:
    """Return the schema with nothing next to a `$ref`, without `prefixItems` and without unused definitions.

    No definition may contain itself.
    """
    definitions: dict[str, JsonSchema] = schema.get("$defs", {})

    def settle(node: JsonSchema) -> JsonSchema:
        return change_parts(_with_positions(_followed(node, definitions)), settle)

    settled = settle(schema)
    kept = settled.pop("$defs", {})
    used = reached(settled, kept)
    kept = {name: part for name, part in kept.items() if name in used}
    return {"$defs": kept, **settled} if kept else settled


def change_parts(node: JsonSchema, change: Callable[[JsonSchema], JsonSchema]) -> JsonSchema:
    """Return a copy of a node in which `change` is applied to each schema directly inside it."""
    changed = dict(node)
    for key, value in node.items():
        if key in _NAMED_PARTS and isinstance(value, dict):
            changed[key] = {name: change(part) for name, part in value.items()}
        elif key in _LISTED_PARTS and isinstance(value, list):
            changed[key] = [change(part) for part in value]
        elif key == "items" and isinstance(value, dict):
            changed[key] = change(value)
    return changed


def walk(node: JsonSchema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], JsonSchema]]:
    """Yield a schema and all schemas inside it, including definitions, each with the path of field names to it."""
    yield path, node
    for names, part in parts_of(node):
        yield from walk(part, (*path, *names))


def parts_of(node: JsonSchema) -> Iterator[tuple[tuple[str, ...], JsonSchema]]:
    """Yield the schemas directly inside a node, including definitions, each with the field's name if it has one."""
    for key, value in node.items():
        if key in _NAMED_PARTS and isinstance(value, dict):
            yield from (((name,), part) for name, part in value.items())
        elif key in _LISTED_PARTS and isinstance(value, list):
            yield from (((), part) for part in value)
        elif key == "items" and isinstance(value, dict):
            yield (), value


def reached(node: JsonSchema, definitions: dict[str, JsonSchema]) -> set[str]:
    """Return the names of the definitions that a node refers to, directly or through others."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        found = set(_references(waiting.pop())) - names
        names |= found
        waiting += [definitions[name] for name in found if name in definitions]
    return names


def name_of(reference: str) -> str:
    """Return the name of the definition that a `$ref` points to."""
    return reference.rpartition("/")[2]


def _followed(node: JsonSchema, definitions: dict[str, JsonSchema]) -> JsonSchema:
    if node.get("allOf") and any("$ref" in part for part in node["allOf"]):
        parts = [_joined({}, definitions[name_of(part["$ref"])]) if "$ref" in part else part for part in node["allOf"]]
        own = {key: value for key, value in node.items() if key != "allOf"}
        node = _joined(own, parts[0]) if len(parts) == 1 else {**own, "allOf": parts}
    while "$ref" in node and node.keys() - {"$ref", "$defs"}:
        own = {key: value for key, value in node.items() if key != "$ref"}
        node = _joined(own, definitions[name_of(node["$ref"])])
    return node


def _joined(own: JsonSchema, target: JsonSchema) -> JsonSchema:
    """Join a field's keywords with its type's. A bound that the field overrides goes into the description."""
    hidden = {key: value for key, value in target.items() if key in own and own[key] != value}
    bounds = ", ".join(f"{key}: {value}" for key, value in hidden.items() if key not in _MAY_DIFFER)
    descriptions = [own.get("description"), target.get("description"), f"{{{bounds}}}" if bounds else None]
    joined = {**target, **own}
    if description := "\n\n".join(dict.fromkeys(text for text in descriptions if text)):
        joined["description"] = description
    return joined


def _with_positions(node: JsonSchema) -> JsonSchema:
    places: list[JsonSchema] = node.get("prefixItems") or []
    if not places:
        return node
    rest = [node["items"]] if isinstance(node.get("items"), dict) else []
    kept = {key: value for key, value in node.items() if key != "prefixItems"}
    if all(place == places[0] for place in [*places, *rest]):
        return {**kept, "items": places[0]}
    numbered = [_numbered(place, f"Position {number}") for number, place in enumerate(places, 1)]
    numbered += [_numbered(place, f"Position {len(places) + 1} and all that follow") for place in rest]
    return {**kept, "items": {"anyOf": numbered} if len(numbered) > 1 else numbered[0]}


def _numbered(place: JsonSchema, position: str) -> JsonSchema:
    description = place.get("description")
    return {**place, "description": f"{position}: {description}" if description else position}


def _references(value: Any) -> Iterator[str]:
    """Yield the names of the definitions in use, even in keywords that become words in a description."""
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield name_of(value["$ref"])
        for item in value.values():
            yield from _references(item)
