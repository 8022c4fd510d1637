"""Read a request's JSON schema: refuse it as the API would, or make a Shape from it.

The API accepts a subset of JSON schema: no lengths, ranges or patterns, only closed objects, no recursion.
"""

import json
import marshal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.draws import digest
from sandbox.error_shapes import Refusal, bad_request
from sandbox.shapes import AnyShape
from sandbox.shaping import shape_of

WHERE = "output_config.format.schema"
_FORMATS = frozenset("date-time time date duration email hostname uri ipv4 ipv6 uuid".split())
_ANYWHERE = frozenset("title description default examples $defs definitions $schema $id $comment".split())
_FOR_TYPE = {
    "object": frozenset({"type", "properties", "required", "additionalProperties"}),
    "array": frozenset({"type", "items", "minItems"}),
    "string": frozenset({"type", "format", "enum", "const"}),
    "integer": frozenset({"type", "enum", "const"}),
    "number": frozenset({"type", "enum", "const"}),
    "boolean": frozenset({"type", "enum", "const"}),
    "null": frozenset({"type", "enum", "const"}),
}
_COMBINED = frozenset({"anyOf", "allOf", "$ref", "enum", "const"})
_REFUSED = frozenset(
    "oneOf not if then else dependentSchemas dependentRequired prefixItems contains maxItems uniqueItems minContains"
    " maxContains patternProperties propertyNames minProperties maxProperties unevaluatedItems unevaluatedProperties"
    " minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum multipleOf $anchor"
    " $dynamicRef".split()
)
_WORDS = _ANYWHERE.union(_COMBINED, _REFUSED, *_FOR_TYPE.values())

_MOST_READ = 1024


@dataclass(frozen=True, slots=True)
class Schema:
    """An accepted schema, with its key and the tokens it adds to the input."""

    shape: AnyShape
    key: bytes
    tokens: int


def read_schema(schema: object) -> Schema:
    """Check and read a schema; raises Refusal with the unsupported keyword."""
    if not isinstance(schema, dict) or not schema:
        raise bad_request(f"{WHERE}: Input should be a valid, non-empty JSON schema object")
    # A run sends one schema with all its requests. Marshalled (version 2 has no references, so equal schemas are
    # equal bytes) it makes a key for the cache in a tenth of the time that JSON takes.
    key = marshal.dumps(schema, 2)
    found = _already_read.get(key)
    if found is None:
        if len(_already_read) >= _MOST_READ:
            del _already_read[next(iter(_already_read))]
        found = _already_read[key] = _read(schema)
    if isinstance(found, Refusal):
        raise found
    return found


_already_read: dict[bytes, Schema | Refusal] = {}


def _read(schema: Mapping[str, Any]) -> Schema | Refusal:
    text = json.dumps(schema)
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    try:
        for name, definition in definitions.items():
            _check(definition, definitions, (name,))
        _check(schema, definitions, ())
    except Refusal as refusal:
        return refusal
    return Schema(shape_of(schema, definitions), digest(text.encode()), (len(text) + 3) // 4)


def _check(schema: Any, definitions: Mapping[str, Any], path: tuple[str, ...]) -> None:
    if not isinstance(schema, dict):
        raise bad_request(f"{WHERE}: every schema should be an object")
    _check_keywords(schema)
    if "$ref" in schema:
        _follow(schema["$ref"], definitions, path)
    for part in _parts(schema):
        _check(part, definitions, path)


def _parts(schema: Mapping[str, Any]) -> list[Any]:
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("allOf", [])]
    return [*parts, schema["items"]] if "items" in schema else parts


def _follow(ref: str, definitions: Mapping[str, Any], path: tuple[str, ...]) -> None:
    name = ref.rsplit("/", 1)[-1]
    if name not in definitions or not ref.startswith(("#/$defs/", "#/definitions/")):
        raise bad_request(f"{WHERE}: $ref '{ref}' cannot be resolved; only references within the schema are supported")
    if name in path:
        raise bad_request(f"{WHERE}: Recursive schemas are not supported: $ref '{ref}' refers to itself")
    _check(definitions[name], definitions, (*path, name))


def _check_keywords(schema: Mapping[str, Any]) -> None:
    if schema and _WORDS.isdisjoint(schema):
        return  # without any keyword of JSON schema, any JSON is an answer
    kind = schema.get("type")
    allowed = _ANYWHERE | _COMBINED | {"type"}
    if kind is not None:
        if not isinstance(kind, str) or kind not in _FOR_TYPE:
            raise bad_request(f"{WHERE}: type: {kind!r} is not supported")
        allowed = _ANYWHERE | _FOR_TYPE[kind] | {"anyOf", "allOf"}
    for keyword in schema:
        if keyword not in allowed:
            of = f"For '{kind}' type, property" if kind else "Property"
            raise bad_request(f"{WHERE}: {of} '{keyword}' is not supported")
    if kind is None and not _COMBINED & schema.keys():
        raise bad_request(f"{WHERE}: Schema must have a 'type', 'anyOf', 'allOf', '$ref', 'enum' or 'const'")
    _check_values(kind, schema)


def _check_values(kind: str | None, schema: Mapping[str, Any]) -> None:
    if kind == "object" and schema.get("additionalProperties") is not False:
        raise bad_request(f"{WHERE}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    if kind == "array" and schema.get("minItems", 0) not in (0, 1):
        raise bad_request(f"{WHERE}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    if kind == "string" and schema.get("format", "date") not in _FORMATS:
        raise bad_request(f"{WHERE}: For 'string' type, format '{schema['format']}' is not supported")
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        raise bad_request(f"{WHERE}: 'enum' should be a non-empty list")
