"""Add to a JSON schema the limits that pydantic checks but leaves out of its schema.

pydantic writes no keyword for the digits of a Decimal, for the ends of a date, a time or a duration, for the schemes
of a URL, or for a pattern after a validator. An answer that breaks one of them is still invalid, so each gets a
keyword here. The SDK moves keywords that the API does not know into the description, where Claude reads them.
pydantic's own keywords do not change, so classes without such limits keep their prompt hashes.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python

_ENDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_DIGITS = {"max_digits": "max_digits", "decimal_places": "decimal_places"}
_TIME_ZONE = {"aware": "required", "naive": "none"}


class SchemaWithBounds(GenerateJsonSchema):
    """Makes pydantic's JSON schema with the limits that pydantic leaves out."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Add the digits to both variants, number and string, so that a union with null stays flat."""
        found, digits = super().decimal_schema(schema), _named(schema, _DIGITS)
        return {**found, "anyOf": [variant | digits for variant in found["anyOf"]]} if digits else found

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        """Add the first and the last day, and whether the date must be past or future."""
        return super().date_schema(schema) | _moment(schema)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Add the ends, whether the moment must be past or future, and whether it has a time zone."""
        return super().datetime_schema(schema) | _moment(schema)

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        """Add the ends, and whether it has a time zone."""
        return super().time_schema(schema) | _moment(schema)

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        """Add the ends."""
        return super().timedelta_schema(schema) | _moment(schema)

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """Add the schemes."""
        return super().url_schema(schema) | _schemes(schema)

    def multi_host_url_schema(self, schema: core_schema.MultiHostUrlSchema) -> JsonSchemaValue:
        """Add the schemes."""
        return super().multi_host_url_schema(schema) | _schemes(schema)

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """Add that only ASCII is allowed."""
        return super().str_schema(schema) | ({"characters": "ASCII only"} if schema.get("ascii_only") else {})

    def chain_schema(self, schema: core_schema.ChainSchema) -> JsonSchemaValue:
        """Add the patterns of later steps, because pydantic's schema has only the first step's."""
        found = super().chain_schema(schema)
        for number, step in enumerate(schema["steps"][1:], 2):
            inner: Any = step
            while inner["type"] in {"function-before", "function-wrap", "function-after"}:
                inner = inner["schema"]
            later = self.str_schema(inner) if inner["type"] == "str" else {}
            if "pattern" in later:
                found[f"pattern {number}" if "pattern" in found else "pattern"] = later["pattern"]
            if "characters" in later:
                found["characters"] = later["characters"]
        return found


def _named(schema: Any, names: Mapping[str, str]) -> dict[str, Any]:
    return {name: to_jsonable_python(schema[key]) for key, name in names.items() if schema.get(key) is not None}


def _moment(schema: Any) -> dict[str, Any]:
    found = _named(schema, _ENDS | {"now_op": "must lie in the"})
    if (zone := schema.get("tz_constraint")) is not None:
        found["time zone"] = _TIME_ZONE.get(zone, f"UTC offset of {zone} seconds")
    return found


def _schemes(schema: Any) -> dict[str, Any]:
    schemes = schema.get("allowed_schemes")
    return {"schemes": " or ".join(schemes)} if schemes else {}
