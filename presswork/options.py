"""Options: what a person may ask of any run, as a form in the Prefect UI and as flags of the command."""

from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema


class Helper(BaseModel):
    """Which helper of a run this one is. A run that is spread tells its helpers; no person fills it in.

    Which records it works on, it takes from the ledger, so that no key of a record has to stand in Prefect.
    """

    model_config = ConfigDict(extra="forbid")

    run: str = Field(description="The id of the run to help.")
    select: str = Field(description="Whose records are divided: the file of the template that selects them.")
    nth: int = Field(1, ge=1, description="Which select of that template, in the order in which the flow makes them.")
    number: int = Field(ge=1)
    of: int = Field(ge=1)

    def __str__(self) -> str:
        return f"helper {self.number} of {self.of}"


def plainly(schema: dict[str, Any]) -> None:
    """Make each field that may be left out a plain one: Prefect's form shows one that may be null as two types.

    Prefect's server takes null all the same for a field that is not required and has no default. A truth value keeps
    its two types: Prefect's form sends false for a plain switch that nobody has touched.
    """
    for field in schema.get("properties", {}).values():
        match field:
            case {"anyOf": [{"type": "boolean"}, {"type": "null"}]}:
                continue
            case {"anyOf": [kind, {"type": "null"}], "default": None}:
                del field["anyOf"], field["default"]
                field.update(kind)


class FormPart(BaseModel):
    """Part of a form. An empty text is null where null is allowed, as `Param.parse` has it for a template's params."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_null(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        nullable = {name for name, field in cls.model_fields.items() if NoneType in get_args(field.annotation)}
        return {name: None if value == "" and name in nullable else value for name, value in given.items()}


class RunOptions(FormPart):
    """How a run is to be made; what is left empty is as the installation's settings say."""

    model_config = ConfigDict(extra="forbid", title="Options", json_schema_extra=plainly)

    limit: int | None = Field(
        None, ge=1, description="The first records of the select. Leave empty for all.", examples=[10]
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        title="Cost cap",
        description="US dollars that this run and those it resumes may spend. Leave empty for the installation's cap.",
        examples=[5],
    )
    refresh: bool = Field(
        default=False,
        description="Ask again for what the ledger already has, and for what was given up. It costs money.",
    )
    concurrency: int | None = Field(
        None, ge=1, le=2000, description="Requests in flight at most, 1 to 2,000.", examples=[50]
    )
    rpm: int | None = Field(
        None, ge=1, title="Requests a minute", description="At most; empty: as the endpoint allows.", examples=[1000]
    )
    chunk_size: int | None = Field(
        None,
        ge=1,
        le=1000,
        title="Chunk size",
        description="Prompts that one Prefect task run carries, 1 to 1,000; 1 shows each here.",
        examples=[50],
    )
    shards: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Split the run into 2 to 100 shards across the pool's workers. Leave empty to run in one process.",
        examples=[4],
    )
    resumes: str | None = Field(None, description="The id of a run that this one completes; they share the cost cap.")
    helper: SkipJsonSchema[Helper | None] = None


class Selection(FormPart):
    """Which records: a subclass has a field for each parameter of its flow's first template."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=plainly)

    def values(self) -> dict[str, Any]:
        """The parameters that were given, as JSON has them; the others take the template's defaults."""
        return self.model_dump(mode="json", exclude_none=True)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values().items()) or "all"
