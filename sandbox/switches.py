"""Define the sandbox's switches, which can be set at its start and while it runs.

Rates are fractions of requests (0 to 1). A request has at most one fault, so the rates may add up to at most 1.
faults.py draws the fault of each request.
"""

from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Rate = Annotated[float, Field(ge=0, le=1)]
PerMinute = Annotated[int | None, Field(ge=1, le=10**12)]

# In the order in which they are drawn. A stalled request still gets a good answer in the end.
FAULTS = (
    "rate_limited",
    "overloaded",
    "server_error",
    "spend_limit",
    "dropped_before",
    "dropped_after",
    "stall",
    "truncated",
    "refused",
    "invalid",
    "malformed",
    "context_exceeded",
    "paused",
    "tool_use",
)


class Switches(BaseModel):
    """All switches of the sandbox. The defaults are a quick API without limits or faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(0, title="Seed", description="Changes the draws of faults and latencies.")
    latency_ms: float = Field(0, ge=0, le=600_000, title="Median latency, ms")
    latency_spread: float = Field(
        0,
        ge=0,
        le=3,
        title="Latency spread",
        description="Sigma of the lognormal. At 0.5, one in 6 takes 1.65 x median.",
    )
    rpm: PerMinute = Field(None, title="Requests a minute", description="Null: no limit.")
    itpm: PerMinute = Field(None, title="Input tokens a minute", description="Cache reads do not count.")
    otpm: PerMinute = Field(None, title="Output tokens a minute")
    burst_seconds: float = Field(60, gt=0, le=3600, title="Burst, s", description="The capacity of a bucket.")
    rate_headers: bool = Field(True, title="Rate headers", description="False: only a 429 reports a limit.")
    stall_seconds: float = Field(30, ge=0, le=3600, title="Length of a stall, s")
    cache_delay_ms: float = Field(
        0,
        ge=0,
        le=600_000,
        title="Prompt cache entries appear late, ms",
        description="Counted from the start of the answer that writes them.",
    )
    cache_missed: Rate = Field(
        0, title="Rate of prompt cache misses", description="Of requests that could read it. A miss writes it."
    )
    batch_ms: float = Field(
        0, ge=0, le=172_800_000, title="Time a batch takes, ms", description="Its answers come after this time."
    )
    keep_bodies: int = Field(0, ge=0, le=100_000, title="Bodies kept", description="For GET /sandbox/requests.")

    rate_limited: Rate = Field(0, title="Rate of 429 rate_limit_error")
    overloaded: Rate = Field(0, title="Rate of 529 overloaded_error")
    server_error: Rate = Field(0, title="Rate of 500 api_error")
    spend_limit: Rate = Field(0, title="Rate of 429 for a spend limit, which stays")
    dropped_before: Rate = Field(0, title="Rate of connections dropped before generating")
    dropped_after: Rate = Field(0, title="Rate of connections dropped after generating")
    stall: Rate = Field(0, title="Rate of answers that come stall_seconds late")
    truncated: Rate = Field(0, title="Rate of answers cut at max_tokens")
    refused: Rate = Field(0, title="Rate of refusals")
    invalid: Rate = Field(0, title="Rate of JSON answers that break a constraint")
    malformed: Rate = Field(0, title="Rate of answers that are not JSON")
    context_exceeded: Rate = Field(0, title="Rate of model_context_window_exceeded")
    paused: Rate = Field(0, title="Rate of pause_turn")
    tool_use: Rate = Field(0, title="Rate of unrequested tool_use")

    @model_validator(mode="after")
    def _rates_exclude_each_other(self) -> Self:
        total = sum(float(getattr(self, name)) for name in FAULTS)
        if total > 1 + 1e-9:
            raise ValueError(f"the rates of {', '.join(FAULTS)} must add up to 1 or less, not {total:g}")
        return self

    @cached_property
    def rates(self) -> tuple[tuple[str, float], ...]:
        """The faults that can be drawn, each with its rate."""
        return tuple((name, getattr(self, name)) for name in FAULTS if getattr(self, name))

    def changed(self, changes: dict[str, object]) -> "Switches":
        """These switches with some changed; raises ValueError with a readable message."""
        try:
            return Switches.model_validate(self.model_dump() | changes)
        except ValidationError as error:
            raise ValueError(explain(error)) from error


def explain(error: ValidationError) -> str:
    """Say in one line what is wrong with each switch."""
    parts = []
    for item in error.errors(include_url=False):
        name = ".".join(str(part) for part in item["loc"])
        reason = "no such switch" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        parts.append(f"{name}: {reason}" if name else reason)
    return "; ".join(parts)
