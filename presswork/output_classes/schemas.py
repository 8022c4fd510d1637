"""Make an output class's JSON schema, and find what the API can't take of it, and what does not reach Claude.

The SDK's own transformation, which claude/output_schema.py calls, passes on what the API can't take, or makes of it
something else than was meant. What it would drop is written so that it does not: limits by bounds.py, words next to a
reference by references.py.

The API refuses a schema with more than 24 optional fields or more than 16 fields of a union type, as its documentation
and its users say. Whether it counts a nested class once or at each use is not documented. So what exceeds a limit
when each definition is counted once is an error, and what exceeds it only when each use is counted is a note.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
from pydantic.errors import PydanticUserError

from presswork.errors import OutputClassError
from presswork.output_classes.bounds import SchemaWithBounds
from presswork.output_classes.references import JsonSchema, name_of, parts_of, reached, walk, write_out
from presswork.output_classes.validate import OutputClass

MOST_OPTIONAL = 24
MOST_UNIONS = 16
UNUSUAL_SIZE = 6000
"""Characters, without titles and descriptions and with each reference written out.

The smallest schema that users report as refused for its size ("the compiled grammar is too large") had 7,354.
"""

_TYPED = frozenset({"type", "anyOf", "oneOf", "allOf", "const", "enum", "$ref"})
_FREE_KEYS = ("additionalProperties", "patternProperties", "propertyNames")
_NOT_COUNTED = frozenset({"title", "description", "$defs", "properties", "items", "anyOf", "allOf", "$ref"})


def full_schema(output_class: OutputClass) -> JsonSchema:
    """Return the schema of all that pydantic checks; OutputClassError where the API can't take it, or there is none.

    It is made to go through the SDK's transformation, which drops what stands next to a reference.
    """
    try:
        schema = output_class.model_json_schema(schema_generator=SchemaWithBounds)
    except (PydanticUserError, ValueError, TypeError, LookupError, NameError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")  # pydantic adds a link to its documentation
        raise OutputClassError(f"The output class {output_class.__name__!r} has no JSON schema: {reason}.") from None
    for why in _refusals(schema):
        raise refused_class(output_class, why)
    return write_out(schema)


def refused_class(output_class: OutputClass, why: str) -> OutputClassError:
    """Make the error that says why the API can't take a class."""
    return OutputClassError(f"The API can't take the output class {output_class.__name__!r}: {why}")


def beyond_limits(sent: JsonSchema) -> str | None:
    """Say what of a schema the API is sure to refuse for its optional fields or unions; None where there is nothing."""
    definitions, least = sent.get("$defs", {}), Counter[str]()
    for _path, node in walk(sent):
        unions = sum(_is_union(field, definitions) for field in node.get("properties", {}).values())
        least += Counter(optional=_optional(node), unions=unions)
    excess = _excess(least)
    return f"it has {excess}." if excess else None


def notes_on(written: JsonSchema, sent: JsonSchema) -> list[str]:
    """Say what may go wrong with a schema that passes, and what of the class (`written`) the request lacks."""
    notes = [f"{'.'.join(path) or 'The class'}: {what}." for path, what in _unsent(written, sent, ())]
    most = _each_use(sent, sent.get("$defs", {}), {})
    if excess := _excess(most):
        notes.append(f"If the API counts a nested class at each of its uses, it refuses this one: it has {excess}.")
    if most["size"] > UNUSUAL_SIZE:
        notes.append(
            f"The schema is unusually large: about {most['size']:,} characters without its descriptions. The API may "
            'refuse it ("the compiled grammar is too large"), and each request pays for it. Split it over two steps, '
            "or use fewer fields and choices."
        )
    return notes


def _excess(weight: Counter[str]) -> str:
    """Say what of a schema's weight the API refuses; empty where that is nothing."""
    optional, unions, told = weight["optional"], weight["unions"], []
    if optional > MOST_OPTIONAL:
        told.append(f"{optional} optional fields, and the limit is {MOST_OPTIONAL}. Make more of them required")
    if unions > MOST_UNIONS:
        told.append(
            f"{unions} fields of a union type (such as `str | None`), and the limit is {MOST_UNIONS}. "
            "Use a single type, such as an empty string for no value"
        )
    return "; it has ".join(told)


def _refusals(schema: JsonSchema) -> Iterator[str]:
    definitions = schema.get("$defs", {})
    for definition in definitions:
        if definition in reached(definitions[definition], definitions):
            yield f"{definition!r} contains itself. Nest to a fixed depth instead."
    for path, node in walk(schema):
        if node.get("type") == "object" and not node.get("properties") and any(map(node.get, _FREE_KEYS)):
            yield (
                f"{'.'.join(path) or 'it'} is a mapping with free keys, which would come back empty. Use a list of "
                "objects with a name and a value."
            )
        for field in _untyped(node):
            yield (
                f"{'.'.join([*path, *field])} may be anything, and the API needs a type. Give it one, such as `str` or "
                "`list[str]`."
            )


def _untyped(node: JsonSchema) -> Iterator[list[str]]:
    """Yield the fields of a node, and an empty name for a list's items, that pydantic says no type of."""
    properties = node.get("properties", {})
    inner = [([name], field) for name, field in properties.items()] if isinstance(properties, dict) else []
    for name, field in [*inner, ([], node.get("items"))]:
        if isinstance(field, dict) and not _TYPED & field.keys():
            yield name


def _each_use(node: JsonSchema, definitions: dict[str, JsonSchema], known: dict[str, Counter[str]]) -> Counter[str]:
    own = {key: value for key, value in node.items() if key not in _NOT_COUNTED}
    size = len(orjson.dumps([own, list(node.get("properties", {}))]))
    weight = Counter(optional=_optional(node), unions=len(node.get("anyOf", ())) > 1, size=size)
    if isinstance(node.get("$ref"), str):
        name = name_of(node["$ref"])
        if name not in known:
            known[name] = _each_use(definitions[name], definitions, known)
        weight += known[name]
    for _name, part in parts_of({key: value for key, value in node.items() if key != "$defs"}):
        weight += _each_use(part, definitions, known)
    return weight


def _optional(node: JsonSchema) -> int:
    return len(node.get("properties", {}).keys() - set(node.get("required", ())))


def _is_union(field: JsonSchema, definitions: dict[str, JsonSchema]) -> bool:
    while "$ref" in field:
        field = definitions[name_of(field["$ref"])]
    return len(field.get("anyOf", ())) > 1


def _unsent(written: JsonSchema, sent: JsonSchema, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find each keyword of a class's schema that is neither in what is sent nor in its description."""
    for key, value in written.items():
        meant = "anyOf" if key == "oneOf" and "anyOf" not in written else key
        if key == "additionalProperties":
            if value is not False:
                yield path, "further fields are allowed, and the API lets Claude write none"
        elif key in {"properties", "$defs"}:
            for name, part in value.items():
                yield from _unsent(part, sent.get(key, {}).get(name, {}), (*path, name))
        elif key == "items" and isinstance(sent.get("items"), dict):
            yield from _unsent(value, sent["items"], path)
        elif meant in {"anyOf", "allOf"} and len(sent.get(meant, ())) == len(value):
            for part, sent_part in zip(value, sent[meant], strict=True):
                yield from _unsent(part, sent_part, path)
        elif not _reaches(key, value, sent):
            yield path, f"`{key}` does not reach Claude. Say it in the description"


def _reaches(key: str, value: Any, sent: JsonSchema) -> bool:
    said = str(sent.get("description", ""))
    if key == "description":
        return said.startswith(str(value))
    if key == "type" and ("enum" in sent or "const" in sent):
        return True
    return sent.get(key) == value or f"{key}: {value}" in said
