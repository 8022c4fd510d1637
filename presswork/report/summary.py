"""What a run did, added up from its ledger, and said as rows: Markdown, terminal and history lay out the same ones."""

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
"""A wait that is said while it lasts."""
LACKING = tuple(status for status in STATUSES if status != SUCCEEDED)
"""How a generation ends that brought no content."""


class GenerationCounts:
    """What the counts of a run and of each of its steps come to."""

    @property
    def with_content(self) -> int:
        """How many generations have content, new or reused."""
        return sum(getattr(self, status) for status in (SUCCEEDED, CACHED))

    @property
    def without_content(self) -> int:
        """How many generations brought no content."""
        return sum(getattr(self, status) for status in LACKING)


class StepSummary(GenerationCounts, BaseModel):
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
        again = (
            (self.late, "could not be read yet: entries appear late"),
            (self.missed, "others could read: the provider's cache missed"),
        )
        parts += [f"{counted(count, 'request')} wrote again what {why}" for count, why in again if count]
        return parts


class Failure(BaseModel):
    """A generation that brought no content."""

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
    """Say what requests used and cost."""
    tokens = f"{used.input_tokens:,} in, {used.output_tokens:,} out"
    if used.cache_read_tokens:
        tokens += f" ({used.cache_read_tokens:,} of those in were read from the prompt cache)"
    cost = dollars(used.cost_usd, used.unpriced) + (" (as Claude would bill it)" if endpoint == SANDBOX else "")
    rows = [("requests", f"{used.requests:,}"), ("tokens", tokens), ("cost", cost)]
    if used.perhaps_billed:
        lost = f"{counted(used.perhaps_billed, 'request')} whose answer was lost"
        likely = "" if used.likely_usd is None else f", likely {dollars(used.likely_usd)}"
        rows.append(("perhaps billed", lost + likely))
    return rows


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """Say what a run used and cost, what it did not have to pay, how it was paced, and what to know of it."""
    rows = [("endpoint", summary.endpoint), *usage_rows(summary, summary.endpoint)]
    rows += [("saved", line) for line in _savings(summary)]
    rows += [("prompt cache", line) for line in summary.prompt_cache.why_not()]
    if pace := summary.pace.words():
        rows.append(("pace", pace))
    return rows + [("note", note) for note in summary.notes]


def _savings(summary: Summary) -> list[str]:
    """Say what a run did not have to pay: by answers that the ledger had, and by the prompt cache."""
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
