"""Options: what a person may ask of any run, as a form in the Prefect UI and as flags of the command."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class RunOptions(BaseModel):
    """How a run is to be made; what is left empty is as the installation's settings say."""

    model_config = ConfigDict(extra="forbid", title="Options")

    limit: int | None = Field(
        None, ge=1, title="Limit", description="Records at most, in the order of their keys.", examples=[10]
    )
    refresh: bool = Field(
        default=False,
        title="Refresh",
        description="Ask again for what the ledger already has, and for what was given up. It costs money.",
    )
    concurrency: int | None = Field(
        None, ge=1, le=2000, title="Concurrency", description="Requests in flight at most.", examples=[50]
    )
    chunk_size: int | None = Field(
        None,
        ge=1,
        le=1000,
        title="Chunk size",
        description="Prompts that one Prefect task run carries; 1 shows each in the UI.",
        examples=[50],
    )
    rpm: int | None = Field(
        None, ge=1, title="Requests a minute", description="At most; empty: as the endpoint allows.", examples=[1000]
    )
    max_cost: float | None = Field(
        None, gt=0, title="Cost cap", description="US dollars that this run may spend.", examples=[5]
    )
    resumes: str | None = Field(
        None, title="Goes on from", description="The id of a run that this one completes; only for the record."
    )


class Selection(BaseModel):
    """Which records: a subclass has a field for each parameter of its flow's first template."""

    model_config = ConfigDict(extra="forbid")

    def values(self) -> dict[str, Any]:
        """The parameters that were given; the others take the template's defaults."""
        return self.model_dump(exclude_none=True)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values().items()) or "all"
