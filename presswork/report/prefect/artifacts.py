"""Show a run on its page in the Prefect UI: ids, counts and the record keys of failures, but no text.

The steps and their results are drawn as an SVG image with its data in its address. Both of Prefect's UIs render such
an image in an artifact; only one of them draws Mermaid. The image holds names of steps and counts.
"""

import base64
from collections.abc import Sequence
from string import punctuation

from prefect.artifacts import acreate_markdown_artifact

from db.words import SANDBOX
from presswork.report.amounts import duration
from presswork.report.step_picture import Paint, steps_svg
from presswork.report.summary import COUNTS, SANDBOX_SAYS, StepSummary, Summary, summary_rows

SUMMARY_KEY = "presswork-summary"
_COLUMNS = ("generations", *COUNTS)
_MARKUP = frozenset(punctuation) - {"-"}
_FREE = ("endpoint", "note")
"""Rows whose values may hold text from outside."""
_IN_COLOUR = Paint(
    ground='fill="#f8fafc"',
    box={
        "": 'fill="#fff" stroke="#475569"',
        "good": 'fill="#fff" stroke="#1b7f4b"',
        "lacking": 'fill="#fff" stroke="#b45309"',
    },
    title='fill="#0f172a"',
    counts={"": 'fill="#475569"', "good": 'fill="#1b7f4b"', "lacking": 'fill="#b45309"'},
    line='fill="none" stroke="#475569"',
    arrow='fill="#475569"',
)
"""An image has no style sheet."""


async def publish_summary(summary: Summary, audit_url: str | None) -> None:
    """Attach the summary to the flow run, with links to the audit room if that has an address."""
    markdown = summary_markdown(summary, audit_url)
    await acreate_markdown_artifact(markdown, key=SUMMARY_KEY, description=f"Run {summary.run_id}")


def summary_markdown(summary: Summary, audit_url: str | None = None) -> str:
    """Lay a summary out as Markdown tables; with the address of the audit room, its ids are links."""
    titles = [name.replace("_", " ") for name in _COLUMNS]
    facts = [
        ("records", f"{summary.records:,}"),
        *((label, _cell(value) if label in _FREE else value) for label, value in summary_rows(summary)),
        ("answered 429", f"{summary.rate_limited:,}"),
        ("time", duration(summary.wall_s)),
        ("run", _linked(f"`{summary.run_id}`", audit_url, f"runs/{summary.run_id}")),
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
        lines += ["", "## Without content", _row("step", "record", "status", "kind", "details"), "|---" * 5 + "|"]
    for failure in summary.failures:
        kind, shown = _cell(failure.kind or ""), f"`presswork show {failure.generation_id}`"
        look = _linked(shown, audit_url, f"generations/{failure.generation_id}")
        lines.append(_row(failure.step, _cell(failure.record_key), failure.status, kind, look))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _linked(text: str, audit_url: str | None, path: str) -> str:
    # Our own ids, and an address that Settings has checked: none of their characters ends a link.
    return f"[{text}]({audit_url.rstrip('/')}/{path})" if audit_url else text


def _cell(text: str) -> str:
    # A record's key is data: it must not end the cell, or become markup or a link. Both of Prefect's UIs remove a
    # backslash again; the older one shows entities in a table as they are.
    escaped = "".join(f"\\{character}" if character in _MARKUP else character for character in text)
    return "".join(part if part.isprintable() else f"U\\+{ord(part):04X}" for part in escaped)


def draw_steps(records: int, steps: Sequence[StepSummary]) -> str:
    """Return the steps as a Markdown image: each below the step that it was made from, with its counts."""
    svg = steps_svg(records, steps, _IN_COLOUR)
    said = ", ".join(f"{step.step} {step.with_content:,}" for step in steps)
    return f"![records {records:,}, {said}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
