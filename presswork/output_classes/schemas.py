"""Make an output class's JSON schema, and find the parts that the API rejects or that do not reach Claude.

The SDK's own transformation, which claude/output_schema.py calls, sends parts that the API rejects, or changes their
meaning. Parts that it would drop are rewritten first: limits by bounds.py, keywords next to a reference by
references.py.

According to its documentation and its users, the API rejects a schema with more than 24 optional fields or more than
16 fields of a union type. Whether it counts a nested class once or at each use is not documented. So a schema that
exceeds a limit by counting each class once is an error; one that exceeds it only by counting each use gets a note.
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
"""In characters, without titles and descriptions and with each reference written out.

The smallest schema for which users reported a rejection ("the compiled grammar is too large") had 7,354.
"""

_TYPED = frozenset({"type", "anyOf", "oneOf", "allOf", "const", "enum", "$ref"})
_FREE_KEYS = ("additionalProperties", "patternProperties", "propertyNames")
_NOT_COUNTED = frozenset({"title", "description", "$defs", "properties", "items", "anyOf", "allOf", "$ref"})


def full_schema(output_class: OutputClass) -> JsonSchema:
    """Return the schema of all that pydantic checks. OutputClassError if there is none or the API can't accept it.

    It has nothing next to a reference, because the SDK's transformation would drop that.
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
    """Make the error for a class that the API can't accept."""
    return OutputClassError(f"The API can't accept the output class {output_class.__name__!r}: {why}")


def beyond_limits(sent: JsonSchema) -> str | None:
    """Return which limits of optional fields or unions a schema surely exceeds. None if it exceeds none."""
    definitions, least = sent.get("$defs", {}), Counter[str]()
    for _path, node in walk(sent):
        unions = sum(_is_union(field, definitions) for field in node.get("properties", {}).values())
        least += Counter(optional=_optional(node), unions=unions)
    excess = _excess(least)
    return f"it has {excess}." if excess else None


def notes_on(written: JsonSchema, sent: JsonSchema) -> list[str]:
    """Return notes on a schema that passes: possible problems, and parts of the class (`written`) that are not sent."""
    notes = [f"{'.'.join(path) or 'The class'}: {what}." for path, what in _unsent(written, sent, ())]
    most = _each_use(sent, sent.get("$defs", {}), {})
    if excess := _excess(most):
        notes.append(f"If the API counts a nested class at each use, it rejects this schema: it has {excess}.")
    if most["size"] > UNUSUAL_SIZE:
        notes.append(
            f"The schema is unusually large: about {most['size']:,} characters without its descriptions. The API may "
            'reject it ("the compiled grammar is too large"), and it adds to the cost of each request. Split it into '
            "two steps, or use fewer fields and choices."
        )
    return notes


def _excess(weight: Counter[str]) -> str:
    """Return which limits a schema's counts exceed; empty if none."""
    optional, unions, excess = weight["optional"], weight["unions"], []
    if optional > MOST_OPTIONAL:
        excess.append(f"{optional} optional fields, and the limit is {MOST_OPTIONAL}. Make more fields required")
    if unions > MOST_UNIONS:
        excess.append(
            f"{unions} fields of a union type (such as `str | None`), and the limit is {MOST_UNIONS}. "
            "Use a single type, such as an empty string for no value"
        )
    return ". It has ".join(excess)


def _refusals(schema: JsonSchema) -> Iterator[str]:
    definitions = schema.get("$defs", {})
    for definition in definitions:
        if definition in reached(definitions[definition], definitions):
            yield f"{definition!r} contains itself. Nest to a fixed depth instead."
    for path, node in walk(schema):
        if node.get("type") == "object" and not node.get("properties") and any(map(node.get, _FREE_KEYS)):
            yield (
                f"{'.'.join(path) or 'it'} is a mapping with free keys, which Claude would leave empty. Use a list of "
                "objects with a name and a value."
            )
        for field in _untyped(node):
            yield (
                f"{'.'.join([*path, *field])} has no type, and the API needs one. Give it a type, such as `str` or "
                "`list[str]`."
            )


def _untyped(node: JsonSchema) -> Iterator[list[str]]:
    """Yield the fields of a node that have no type in pydantic's schema; a list's items have an empty name."""
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
    """Yield each keyword of a class's schema that is missing in the sent schema and in its descriptions."""
    for key, value in written.items():
        meant = "anyOf" if key == "oneOf" and "anyOf" not in written else key
        if key == "additionalProperties":
            if value is not False:
                yield path, "extra fields are allowed, but the API lets Claude write none"
        elif key in {"properties", "$defs"}:
            for name, part in value.items():
                yield from _unsent(part, sent.get(key, {}).get(name, {}), (*path, name))
        elif key == "items" and isinstance(sent.get("items"), dict):
            yield from _unsent(value, sent["items"], path)
        elif meant in {"anyOf", "allOf"} and len(sent.get(meant, ())) == len(value):
            for part, sent_part in zip(value, sent[meant], strict=True):
                yield from _unsent(part, sent_part, path)
        elif not _reaches(key, value, sent):
            yield path, f"`{key}` does not reach Claude. Put it into the description"


def _reaches(key: str, value: Any, sent: JsonSchema) -> bool:
    said = str(sent.get("description", ""))
    if key == "description":
        return said.startswith(str(value))
    if key == "type" and ("enum" in sent or "const" in sent):
        return True
    return sent.get(key) == value or f"{key}: {value}" in said
