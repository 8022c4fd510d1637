"""Summarize a run from its ledger, as rows that Markdown, terminal and history share."""

from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from db.readers.failures import without_content
from db.readers.figures import TotalUsage
from db.words import CACHED, CAPPED, COMPLETED, COUNTED, SANDBOX, STATUSES, SUCCEEDED
from presswork.pacing.buckets import a_minute
from presswork.report.amounts import counted, dollars, percent

HAS_ALL, LACKS_SOME, MET_CAP = 0, 1, 3
COUNTS = (*COUNTED, "left_out")
"""The counts of a run and of each of its steps, in the order in which they are shown."""
SANDBOX_SAYS = "This ran on the sandbox: its answers are made up, and nothing was billed."
LONG_S = 5.0
"""A wait of this many seconds is shown while it lasts."""
LACKING = tuple(status for status in STATUSES if status != SUCCEEDED)
"""The statuses of a generation without content."""


class GenerationCounts:
    """Sums over the counts of a run or of one of its steps."""

    @property
    def with_content(self) -> int:
        """How many generations have content, new or reused."""
        return sum(getattr(self, status) for status in (SUCCEEDED, CACHED))

    @property
    def without_content(self) -> int:
        """How many generations have no content."""
        return sum(getattr(self, status) for status in LACKING)


class StepSummary(GenerationCounts, BaseModel):
    """One step of a run: how many generations ended with each status."""

    step: str
    made_from: str | None = Field(None, description="The step whose content is its input. None: it works on records.")
    generations: int = 0
    cached: int = 0
    succeeded: int = 0
    invalid: int = 0
    truncated: int = 0
    refused: int = 0
    failed: int = 0
    skipped: int = 0
    left_out: int = Field(0, description="Records skipped because an earlier step produced no content for them.")


class PaceSummary(BaseModel):
    """How requests were paced: the rate, the lowest known limit per minute and its source, and the waits."""

    requests_per_minute: float = 0.0
    limit_per_minute: float | None = None
    limit_from: str | None = Field(
        None, description="own: a setting; told: rate headers; found: measured, as there were no headers."
    )
    share_of_limit: float | None = None
    rate_limited: int = 0
    refused_anyway: float = Field(0.0, description="Known share of answers that are 429 whatever the rate.")
    waited_s: float = 0.0
    waiting_s: float = Field(0.0, description="Seconds that the next request has to wait now.")
    waiting_for: str | None = Field(None, description="The limit that it waits for.")

    def words(self) -> str:
        """Describe the pace in one line; empty if no request was made."""
        return "; ".join(self.parts())

    def parts(self) -> list[str]:
        """Describe the pace in parts; empty if there is nothing to report."""
        parts = [self._rate()] if self.requests_per_minute else []
        if self.limit_from == "found" and self.limit_per_minute is not None:
            limit = a_minute(self.limit_per_minute)
            parts.append(f"held at {limit} requests a minute: the endpoint answers 429 above it")
        if self.waited_s >= 1 and parts:
            parts.append(f"waited {self.waited_s:,.0f} s for it")
        if self.rate_limited:
            anyway = f", about {percent(self.refused_anyway)} whatever the rate" if self.refused_anyway >= 0.01 else ""
            parts.append(f"{self.rate_limited:,} answered 429{anyway}")
        if self.waiting_s >= LONG_S and self.waiting_for:
            parts.append(f"the next request waits {self.waiting_s:,.0f} s for {self.waiting_for}")
        return parts

    def _rate(self) -> str:
        rate = f"{self.requests_per_minute:,.0f} requests a minute"
        # 0.0 if the endpoint reports a limit that is never reached.
        if not self.share_of_limit or self.limit_per_minute is None or self.limit_from == "found":
            return rate
        whose = "your own" if self.limit_from == "own" else "the"
        return f"{rate}, {percent(self.share_of_limit)} of {whose} limit of {a_minute(self.limit_per_minute)}"


class PromptCacheSummary(BaseModel):
    """How many requests read and wrote the endpoint's prompt cache, and why not more of them read it.

    Reads and writes come from the ledger; the rest is what this process has seen.
    """

    reads: int = 0
    writes: int = 0
    late: int = Field(0, description="Requests that cached a prefix again before it could be read.")
    missed: int = Field(0, description="Requests that cached a prefix again although it could be read.")
    silent: int = Field(0, description="Answers that reported neither a write nor a read.")
    too_short: list[str] = Field(default_factory=list, description="Templates whose prefix the model can't cache.")

    def why_not(self) -> list[str]:
        """Explain why not more was read; empty if there is nothing to explain."""
        parts = []
        if self.too_short:
            parts.append(f"not used for {', '.join(self.too_short)}: the prefix is too short for the model to cache")
        if self.silent and not self.reads and not self.writes:
            parts.append("no answer reports it: the prefix is too short after all, or a gateway hides it")
        again = (
            (self.late, "before it could be read: entries appear late"),
            (self.missed, "although others could read it: the provider's cache missed"),
        )
        parts += [f"{counted(count, 'request')} wrote the prefix again {why}" for count, why in again if count]
        return parts


class Failure(BaseModel):
    """A generation without content."""

    model_config = ConfigDict(from_attributes=True)

    generation_id: str
    step: str
    record_key: str
    status: str
    kind: str | None
    message: str | None


def list_failures(ledger: Engine, run_id: str, limit: int = 10) -> list[Failure]:
    """List a run's first generations without content."""
    return [Failure.model_validate(row) for row in without_content(ledger, run_id, limit)]


class Summary(GenerationCounts, BaseModel):
    """The figures of a run. All counts by status are of generations: `succeeded` are new, `cached` are reused."""

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
    saved_by_ledger_usd: Decimal | None = Field(None, description="Original cost of the reused answers. None: unknown.")
    saved_by_prompt_cache_usd: Decimal | None = Field(
        None, description="Savings by reads, minus the extra cost of writes. None: unknown."
    )
    prompt_cache: PromptCacheSummary = Field(default_factory=PromptCacheSummary)
    unpriced: int
    perhaps_billed: int
    likely_usd: Decimal | None = Field(
        Decimal(0), description="Likely cost of perhaps billed requests; cost_usd does not include it. None: unknown."
    )
    rate_limited: int
    wall_s: float
    pace: PaceSummary
    notes: list[str] = Field(default_factory=list, description="Remarks on the endpoint and on how the run went.")
    steps: list[StepSummary]
    failures: list[Failure]

    @property
    def exit_status(self) -> int:
        """0: all have content; 1: some do not; 3: the cost cap stopped the run. For status 2 an error is raised."""
        if self.status == CAPPED:
            return MET_CAP
        return HAS_ALL if self.status == COMPLETED and not self.without_content + self.left_out else LACKS_SOME

    def for_programs(self) -> dict[str, Any]:
        """The summary as plain JSON values; money is a number of dollars."""
        data = self.model_dump(mode="json")
        for name in ("cost_usd", "likely_usd", "saved_by_ledger_usd", "saved_by_prompt_cache_usd"):
            amount = getattr(self, name)
            data[name] = None if amount is None else float(amount)
        return data


def usage_rows(used: Summary | TotalUsage, endpoint: str) -> list[tuple[str, str]]:
    """Return rows on what requests used and cost."""
    tokens = f"{used.input_tokens:,} in, {used.output_tokens:,} out"
    if used.cache_read_tokens:
        tokens += f" ({used.cache_read_tokens:,} of the input read from the prompt cache)"
    cost = dollars(used.cost_usd, used.unpriced) + (" (as Claude would bill it)" if endpoint == SANDBOX else "")
    rows = [("requests", f"{used.requests:,}"), ("tokens", tokens), ("cost", cost)]
    if used.perhaps_billed:
        lost = f"{counted(used.perhaps_billed, 'request')} whose answer was lost"
        likely = "" if used.likely_usd is None else f", likely {dollars(used.likely_usd)}"
        rows.append(("perhaps billed", lost + likely))
    return rows


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """Return rows on what a run used, cost and saved, how it was paced, and other remarks."""
    rows = [("endpoint", summary.endpoint), *usage_rows(summary, summary.endpoint)]
    rows += [("saved", line) for line in _savings(summary)]
    rows += [("prompt cache", line) for line in summary.prompt_cache.why_not()]
    if pace := summary.pace.words():
        rows.append(("pace", pace))
    return rows + [("note", note) for note in summary.notes]


def _savings(summary: Summary) -> list[str]:
    """Describe what a run saved by answers from the ledger and by the prompt cache."""
    unknown, lines = "an unknown amount", []
    if summary.cached:
        saved = summary.saved_by_ledger_usd
        answers = counted(summary.cached, "answer")
        lines.append(f"{unknown if saved is None else dollars(saved)} by {answers} from the ledger")
    if summary.cache_read_tokens or summary.cache_creation_tokens:
        saved, used = summary.saved_by_prompt_cache_usd, summary.prompt_cache
        counts = f"({counted(used.reads, 'request')} read it, {used.writes:,} wrote it)"
        if saved is not None and saved < 0:
            lost = f"writing it cost {dollars(-saved)} more than reading it saved"
            lines.append(f"nothing by the prompt cache: {lost} {counts}")
        else:
            lines.append(f"{unknown if saved is None else dollars(saved)} by the prompt cache {counts}")
    return lines
