"""Summary: what a run did, added up from the ledger when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Engine

from db.readers.failures import without_content
from db.readers.figures import PromptCacheUse, cost_reused, count_generations, prompt_cache_use, usage
from flows.engine.pacing.buckets import a_minute
from flows.engine.pacing.warming import Warmth
from flows.steps.prices import Usage, saved_by_prompt_cache

COMPLETE, INCOMPLETE, CAPPED = 0, 1, 3
LONG_S = 5.0
"""A wait that is said while it lasts."""


class StepSummary(BaseModel):
    """One step of a run: how many generations ended how."""

    step: str
    made_from: str | None = Field(None, description="The step whose generations it was made from; None: records.")
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
    """How requests were paced: the lowest limit a minute that was known, where from, and what was waited for it."""

    requests_per_minute: float = 0.0
    limit_per_minute: float | None = None
    limit_from: str | None = Field(
        None, description="own: a setting; told: rate headers; found: by what was accepted, as nothing was told."
    )
    share_of_limit: float | None = None
    rate_limited: int = 0
    refused_anyway: float = Field(0.0, description="The share of answers that are 429 at any rate, as far as is known.")
    waited_s: float = 0.0
    waiting_s: float = Field(0.0, description="How long the next request has to wait now.")
    waiting_for: str | None = Field(None, description="The limit that it waits for.")

    def words(self) -> str:
        """Say it in one line; empty where no request was made."""
        return "; ".join(self.parts())

    def parts(self) -> list[str]:
        """Say each thing that there is to say."""
        parts = [self._rate()] if self.requests_per_minute else []
        if self.limit_from == "found" and self.limit_per_minute is not None:
            limit = a_minute(self.limit_per_minute)
            parts.append(f"held at {limit} requests a minute: the endpoint answers 429 above it")
        if self.waited_s >= 1 and parts:
            parts.append(f"{self.waited_s:,.0f} s waited for it")
        if self.rate_limited:
            anyway = f", about {percent(self.refused_anyway)} at any rate" if self.refused_anyway >= 0.01 else ""
            parts.append(f"{self.rate_limited:,} answered 429{anyway}")
        if self.waiting_s >= LONG_S and self.waiting_for:
            parts.append(f"the next waits {self.waiting_s:,.0f} s for {self.waiting_for}")
        return parts

    def _rate(self) -> str:
        rate = f"{self.requests_per_minute:,.0f} requests a minute"
        # 0.0 where the endpoint tells a limit that nobody meets.
        if not self.share_of_limit or self.limit_per_minute is None or self.limit_from == "found":
            return rate
        whose = "your own" if self.limit_from == "own" else "the"
        return f"{rate}, {percent(self.share_of_limit)} of {whose} limit of {a_minute(self.limit_per_minute)}"


def percent(share: float) -> str:
    """Show a share as a percentage."""
    return f"{share:.0%}".replace("%", " %")


class PromptCacheSummary(BaseModel):
    """How many requests read the endpoint's prompt cache and how many wrote it, and why not more were read.

    Reads and writes are the ledger's; the rest is what this process has seen.
    """

    reads: int = 0
    writes: int = 0
    late: int = Field(0, description="Requests that wrote a prefix again before the entry could be read.")
    missed: int = Field(0, description="Requests that wrote a prefix again although others could read it.")
    silent: int = Field(0, description="Answers that told neither of writing nor of reading.")
    too_short: list[str] = Field(default_factory=list, description="Templates whose prefix the model can't cache.")

    def why_not(self) -> list[str]:
        """Say why not more was read; empty where there is nothing to say."""
        parts = []
        if self.too_short:
            parts.append(f"not used for {', '.join(self.too_short)}: too short for the model to cache")
        if self.silent and not self.reads and not self.writes:
            parts.append("no answer tells of it: too short after all, or a gateway does not pass it on")
        if self.late:
            parts.append(f"{_requests(self.late)} wrote again what could not be read yet: entries appear late")
        if self.missed:
            parts.append(f"{_requests(self.missed)} wrote again what others could read: the provider's cache missed")
        return parts


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
    saved_by_ledger_usd: Decimal | None = Field(
        None, description="What the reused answers cost when they were asked for; None where that is not known."
    )
    saved_by_prompt_cache_usd: Decimal | None = Field(
        None, description="Reads at less than the price of input, less what writes cost beyond it; None: not known."
    )
    prompt_cache: PromptCacheSummary = Field(default_factory=PromptCacheSummary)
    unpriced: int
    perhaps_billed: int
    likely_usd: Decimal | None = Field(
        Decimal(0), description="What requests that were perhaps billed likely cost, beyond cost_usd; None: not known."
    )
    rate_limited: int
    wall_s: float
    pace: PaceSummary
    notes: list[str] = Field(default_factory=list, description="What to know of the endpoint and of how the run went.")
    steps: list[StepSummary]
    failures: list[Failure]

    @property
    def exit_status(self) -> int:
        """0 all have content, 1 some have not, 3 the cost cap stopped it; what ends with 2 raises an error instead."""
        if self.status == "capped":
            return CAPPED
        lacking = self.invalid + self.truncated + self.refused + self.failed + self.skipped + self.left_out
        return COMPLETE if self.status == "completed" and not lacking else INCOMPLETE

    def for_programs(self) -> dict[str, Any]:
        """The summary as plain JSON values; money is a number of dollars."""
        data = self.model_dump(mode="json")
        for name in ("cost_usd", "likely_usd", "saved_by_ledger_usd", "saved_by_prompt_cache_usd"):
            amount = getattr(self, name)
            data[name] = None if amount is None else float(amount)
        return data


def perhaps_billed(requests: int, likely_usd: Decimal | None) -> str:
    """Say how many requests were perhaps billed, and what they likely cost, where that is known."""
    lost = f"{requests:,} request{'' if requests == 1 else 's'} whose answer was lost"
    return lost if likely_usd is None else f"{lost}, likely ${likely_usd:,.4f}"


def savings(summary: Summary) -> list[str]:
    """Say what a run did not have to pay: by answers that the ledger had, and by the prompt cache."""
    lines = []
    if summary.cached:
        answers = f"{summary.cached:,} answer{'' if summary.cached == 1 else 's'} from the ledger"
        saved = summary.saved_by_ledger_usd
        lines.append(f"{'an unknown amount' if saved is None else f'${saved:,.4f}'} by {answers}")
    if summary.cache_read_tokens or summary.cache_creation_tokens:
        saved, used = summary.saved_by_prompt_cache_usd, summary.prompt_cache
        counts = f" ({_requests(used.reads)} read it, {used.writes:,} wrote it)"
        if saved is None:
            lines.append("an unknown amount by the prompt cache" + counts)
        elif saved < 0:
            lost = f"writing it cost ${-saved:,.4f} more than reading it saved"
            lines.append(f"nothing by the prompt cache: {lost}{counts}")
        else:
            lines.append(f"${saved:,.4f} by the prompt cache" + counts)
    return lines


def summarize(
    ledger: Engine,
    *,
    run_id: str,
    flow: str,
    endpoint: str,
    status: str,
    records: int,
    left_out: dict[str, int],
    made_from: Mapping[str, str],
    wall_s: float,
    pace: PaceSummary,
    warmth: Warmth,
    notes: Sequence[str] = (),
) -> Summary:
    """Add a run up from its generations and attempts."""
    steps: dict[str, StepSummary] = {}
    for line in count_generations(ledger, run_id):
        step = steps.setdefault(line.step, StepSummary(step=line.step, left_out=left_out.get(line.step, 0)))
        name = "cached" if line.status == "succeeded" and line.origin == "cache" else line.status
        setattr(step, name, getattr(step, name) + line.count)
        step.generations += line.count
    for name, count in left_out.items():
        steps.setdefault(name, StepSummary(step=name, left_out=count))
    for step in steps.values():
        step.made_from = made_from.get(step.step)
    used, cached = usage(ledger, run_id), prompt_cache_use(ledger, run_id)
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
        for row in without_content(ledger, run_id)
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
        saved_by_ledger_usd=cost_reused(ledger, run_id) if totals["cached"] else Decimal(0),
        saved_by_prompt_cache_usd=_saved_by_prompt_cache(cached),
        prompt_cache=PromptCacheSummary(
            reads=sum(use.reads for use in cached),
            writes=sum(use.writes for use in cached),
            late=warmth.late,
            missed=warmth.missed,
            silent=warmth.silent,
            too_short=list(warmth.too_short),
        ),
        unpriced=used.unpriced,
        perhaps_billed=used.perhaps_billed,
        likely_usd=used.likely_usd,
        rate_limited=used.rate_limited,
        wall_s=round(wall_s, 3),
        pace=pace,
        notes=list(notes),
        steps=list(steps.values()),
        failures=failures,
    )


def _saved_by_prompt_cache(uses: Sequence[PromptCacheUse]) -> Decimal | None:
    total = Decimal(0)
    for use in uses:
        usage = Usage(
            input_tokens=0,
            cache_creation_5m_tokens=use.written_5m,
            cache_creation_1h_tokens=use.written_1h,
            cache_read_tokens=use.read,
            service_tier=use.service_tier,
            inference_geo=use.inference_geo,
            speed=use.speed,
        )
        saved = saved_by_prompt_cache(use.model, usage, use.day, prompt_tokens=use.prompt_tokens)
        if saved is None:
            return None
        total += saved
    return total


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"
