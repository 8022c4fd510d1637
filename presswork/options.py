"""Define the options of any run, which the Prefect UI shows as a form and the command as flags."""

from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema


class Helper(BaseModel):
    """Which helper of a run this one is. A run that is split into shards fills it in; a person never does.

    A helper reads from the ledger which records are its own, so Prefect stores no key of a record.
    """

    model_config = ConfigDict(extra="forbid")

    run: str = Field(description="The id of the run to help.")
    select: str = Field(description="The file of the template whose records are divided.")
    nth: int = Field(1, ge=1, description="Which select of that template, in the flow's order.")
    number: int = Field(ge=1)
    of: int = Field(ge=1)

    def __str__(self) -> str:
        return f"helper {self.number} of {self.of}"


def plainly(schema: dict[str, Any]) -> None:
    """Give each nullable field one type, because Prefect's form shows a nullable field as a choice of two types.

    Prefect's server still accepts null for a field that is not required and has no default. A boolean keeps both
    types, because Prefect's form sends false for a plain switch that was not touched.
    """
    for field in schema.get("properties", {}).values():
        match field:
            case {"anyOf": [{"type": "boolean"}, {"type": "null"}]}:
                continue
            case {"anyOf": [kind, {"type": "null"}], "default": None}:
                del field["anyOf"], field["default"]
                field.update(kind)


class FormPart(BaseModel):
    """A part of a form. An empty text becomes null if the field allows null, as in a template's params."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_null(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        nullable = {name for name, field in cls.model_fields.items() if NoneType in get_args(field.annotation)}
        return {name: None if value == "" and name in nullable else value for name, value in given.items()}


class RunOptions(FormPart):
    """How to make a run. The installation's settings apply to empty fields."""

    model_config = ConfigDict(extra="forbid", title="Options", json_schema_extra=plainly)

    limit: int | None = Field(
        None,
        ge=1,
        description="Take only this many records, in the select's order. Leave empty for all.",
        examples=[10],
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        title="Cost cap",
        description="Spend at most this many US dollars, including resumed runs. Leave empty for the default cap.",
        examples=[5],
    )
    refresh: bool = Field(
        default=False,
        description="Generate again even if the ledger has content, skipped records too. This costs money.",
    )
    concurrency: int | None = Field(
        None, ge=1, le=2000, description="Send at most this many requests at once, 1 to 2,000.", examples=[50]
    )
    rpm: int | None = Field(
        None,
        ge=1,
        title="Requests a minute",
        description="Send at most this many requests a minute. Leave empty for the endpoint's limit.",
        examples=[1000],
    )
    chunk_size: int | None = Field(
        None,
        ge=1,
        le=1000,
        title="Chunk size",
        description="Put this many prompts in one Prefect task run, 1 to 1,000. Use 1 to see each here.",
        examples=[50],
    )
    shards: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Split the run into 2 to 100 shards across the pool's workers. Leave empty to run in one process.",
        examples=[4],
    )
    resumes: str | None = Field(None, description="Resume the run with this id. Both runs share the cost cap.")
    helper: SkipJsonSchema[Helper | None] = None


class Selection(FormPart):
    """Which records to select. A subclass has a field for each parameter of its flow's first template."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=plainly)

    def values(self) -> dict[str, Any]:
        """Return the parameters that were given, as JSON values. The others keep the template's defaults."""
        return self.model_dump(mode="json", exclude_none=True)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values().items()) or "all"
