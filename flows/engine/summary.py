"""Summary: what a run did, added up from the ledger when it ends."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Engine

from db import history

COMPLETE, INCOMPLETE, CAPPED = 0, 1, 3


class StepSummary(BaseModel):
    """One step of a run: how many generations ended how."""

    step: str
    generations: int = 0
    cached: int = 0
    succeeded: int = 0
    invalid: int = 0
    truncated: int = 0
    refused: int = 0
    failed: int = 0
    skipped: int = 0
    left_out: int = Field(0, description="Records not taken up, as an earlier step brought no content for them.")


class Failure(BaseModel):
    """A generation that brought no content."""

    generation_id: str
    step: str
    record_key: str
    status: str
    kind: str | None
    message: str | None


class PaceSummary(BaseModel):
    """How requests were paced: by the endpoint's limit a minute, where one is known; seconds waited for it."""

    requests_per_minute: float = 0.0
    limit_per_minute: float | None = None
    share_of_limit: float | None = None
    rate_limited: int = 0
    waited_s: float = 0.0


class Summary(BaseModel):
    """A run in figures. Counts other than `records` are of generations; `succeeded` are new ones, `cached` reused."""

    run_id: str
    flow: str
    endpoint: str
    status: str
    records: int
    cached: int
    succeeded: int
    invalid: int
    truncated: int
    refused: int
    failed: int
    skipped: int
    left_out: int
    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    cost_usd: Decimal | None
    unpriced: int
    perhaps_billed: int
    rate_limited: int
    wall_s: float
    pace: PaceSummary
    steps: list[StepSummary]
    failures: list[Failure]

    @property
    def exit_status(self) -> int:
        """0 all have content, 1 some have not, 3 the cost cap stopped it."""
        if self.status == "capped":
            return CAPPED
        lacking = self.invalid + self.truncated + self.refused + self.failed + self.skipped + self.left_out
        return COMPLETE if self.status == "completed" and not lacking else INCOMPLETE

    def for_programs(self) -> dict[str, Any]:
        """The summary as plain JSON values; money is a number of dollars."""
        data = self.model_dump(mode="json")
        data["cost_usd"] = None if self.cost_usd is None else float(self.cost_usd)
        return data


def summarize(
    ledger: Engine,
    *,
    run_id: str,
    flow: str,
    endpoint: str,
    status: str,
    records: int,
    left_out: dict[str, int],
    wall_s: float,
    pace: PaceSummary,
) -> Summary:
    """Add a run up from its generations and attempts."""
    steps: dict[str, StepSummary] = {}
    for line in history.count_generations(ledger, run_id):
        step = steps.setdefault(line.step, StepSummary(step=line.step, left_out=left_out.get(line.step, 0)))
        name = "cached" if line.status == "succeeded" and line.origin == "cache" else line.status
        setattr(step, name, getattr(step, name) + line.count)
        step.generations += line.count
    for name, count in left_out.items():
        steps.setdefault(name, StepSummary(step=name, left_out=count))
    used = history.usage(ledger, run_id)
    totals = {
        name: sum(getattr(step, name) for step in steps.values())
        for name in ("cached", "succeeded", "invalid", "truncated", "refused", "failed", "skipped")
    }
    failures = [
        Failure(
            generation_id=row.id,
            step=row.step,
            record_key=row.record_key,
            status=row.status,
            kind=row.error_kind,
            message=row.error_message,
        )
        for row in history.worst(ledger, run_id)
    ]
    return Summary(
        run_id=run_id,
        flow=flow,
        endpoint=endpoint,
        status=status,
        records=records,
        **totals,
        left_out=sum(left_out.values()),
        requests=used.requests,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cache_read_tokens,
        cache_creation_tokens=used.cache_creation_tokens,
        cost_usd=used.cost_usd,
        unpriced=used.unpriced,
        perhaps_billed=used.perhaps_billed,
        rate_limited=used.rate_limited,
        wall_s=round(wall_s, 3),
        pace=pace,
        steps=list(steps.values()),
        failures=failures,
    )
