"""Turn an output class into the schema that the API takes, by the SDK's own transformation."""

from typing import Any

import anthropic

from presswork.output_classes.schemas import beyond_limits, full_schema, refused_class
from presswork.output_classes.validate import OutputClass


def output_schema(output_class: OutputClass) -> dict[str, Any]:
    """Return the schema; OutputClassError where the API can't take the class.

    Bounds that the API does not enforce (lengths, ranges, patterns) go into the descriptions, for the model to read.
    """
    schema = full_schema(output_class)
    try:
        sent = anthropic.transform_schema(schema)
    except (ValueError, TypeError, AssertionError) as error:
        raise refused_class(output_class, str(error)) from None
    if why := beyond_limits(sent):
        raise refused_class(output_class, why)
    return sent
