"""Show a run on its page in the Prefect UI: ids and counts, the record keys of failures, no text."""

from __future__ import annotations

from string import punctuation

from prefect.artifacts import acreate_markdown_artifact

from db.words import SANDBOX
from flows.engine.report.amounts import duration
from flows.engine.report.picture import draw_steps
from flows.engine.report.summary import COUNTS, Summary
from flows.engine.report.summary_rows import SANDBOX_SAYS, summary_rows

SUMMARY_KEY = "presswork-summary"
_COLUMNS = ("generations", *COUNTS)
_MARKUP = frozenset(punctuation) - {"-"}
_FREE = ("endpoint", "note")
"""Rows whose values are not all words of ours."""


async def publish_summary(summary: Summary) -> None:
    """Attach the summary to the flow run."""
    await acreate_markdown_artifact(summary_markdown(summary), key=SUMMARY_KEY, description=f"Run {summary.run_id}")


def summary_markdown(summary: Summary) -> str:
    """Lay a summary out as Markdown tables."""
    titles = [name.replace("_", " ") for name in _COLUMNS]
    facts = [
        ("records", f"{summary.records:,}"),
        *((label, _cell(value) if label in _FREE else value) for label, value in summary_rows(summary)),
        ("answered 429", f"{summary.rate_limited:,}"),
        ("time", duration(summary.wall_s)),
        ("run", f"`{summary.run_id}`"),
    ]
    lines = [
        f"# {summary.flow}: {summary.status}",
        f"\n> **{SANDBOX_SAYS}**\n" if summary.endpoint == SANDBOX else "",
        *([draw_steps(summary.records, summary.steps), ""] if len(summary.steps) > 1 else []),
        _row("step", *titles),
        "|---|" + "---:|" * len(titles),
        *(_row(step.step, *(f"{getattr(step, name):,}" for name in _COLUMNS)) for step in summary.steps),
        "",
        "| | |",
        "|---|---:|",
        *(_row(*fact) for fact in facts),
    ]
    if summary.failures:
        lines += ["", "## Without content", _row("step", "record", "status", "kind", "look at it"), "|---" * 5 + "|"]
    for failure in summary.failures:
        kind, look = _cell(failure.kind or ""), f"`presswork show {failure.generation_id}`"
        lines.append(_row(failure.step, _cell(failure.record_key), failure.status, kind, look))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    # A record's key is data: it must not end the cell, or become markup or a link. A backslash is what both of
    # Prefect's UIs take away again; the older one shows entities in a table as they are.
    escaped = "".join(f"\\{character}" if character in _MARKUP else character for character in text)
    return "".join(part if part.isprintable() else f"U\\+{ord(part):04X}" for part in escaped)
