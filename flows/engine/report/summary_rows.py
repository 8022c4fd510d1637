"""Say a run's figures as rows of (label, value). Markdown, the terminal and the history lay out the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.words import SANDBOX
from flows.engine.report.amounts import counted, dollars

if TYPE_CHECKING:
    from db.readers.figures import TotalUsage
    from flows.engine.report.summary import Summary

SANDBOX_SAYS = "This ran on the sandbox: its answers are made up, and nothing was billed."


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
