"""Turn an output class into a schema that the API accepts, with the SDK's own transformation."""

from typing import Any

from presswork.claude.kept_schemas import sent_schema
from presswork.output_classes.schemas import beyond_limits, full_schema, refused_class
from presswork.output_classes.validate import OutputClass


def output_schema(output_class: OutputClass) -> dict[str, Any]:
    """Return the schema. Raises OutputClassError if the API can't accept the class.

    Bounds that the API does not enforce (lengths, ranges, patterns) go into the descriptions, where the model reads
    them.
    """
    schema = full_schema(output_class)
    try:
        sent = sent_schema(schema)
    except (ValueError, TypeError, AssertionError) as error:
        raise refused_class(output_class, str(error)) from None
    if why := beyond_limits(sent):
        raise refused_class(output_class, why)
    return sent
