"""Artifacts: what a run shows on its page in the Prefect UI. Ids and counts; record keys of failures; no text."""

from __future__ import annotations

from string import punctuation

from prefect.artifacts import acreate_markdown_artifact

from flows.engine.report.picture import draw_steps
from flows.engine.report.summary import StepSummary, Summary, perhaps_billed, savings

SUMMARY_KEY = "presswork-summary"
COUNTS = ("generations", "cached", "succeeded", "invalid", "truncated", "refused", "failed", "skipped", "left_out")


async def publish_summary(summary: Summary) -> None:
    """Attach the summary to the flow run."""
    await acreate_markdown_artifact(summary_markdown(summary), key=SUMMARY_KEY, description=f"Run {summary.run_id}")


def summary_markdown(summary: Summary) -> str:
    """Lay a summary out as Markdown tables."""
    sandbox = "\n> **This ran on the sandbox:** its answers are made up, its costs are not billed.\n"
    pace = summary.pace.words()
    lost = perhaps_billed(summary.perhaps_billed, summary.likely_usd)
    lines = [
        f"# {summary.flow}: {summary.status}",
        sandbox if summary.endpoint == "sandbox" else "",
        *([draw_steps(summary.records, summary.steps), ""] if len(summary.steps) > 1 else []),
        "| step | " + " | ".join(name.replace("_", " ") for name in COUNTS) + " |",
        "|---|" + "---:|" * len(COUNTS),
        *(_step_row(step) for step in summary.steps),
        "",
        "| | |",
        "|---|---:|",
        f"| records | {summary.records:,} |",
        f"| requests | {summary.requests:,} |",
        f"| input tokens | {summary.input_tokens:,} |",
        f"| of these read from the prompt cache | {summary.cache_read_tokens:,} |",
        f"| output tokens | {summary.output_tokens:,} |",
        f"| cost | {money(summary)} |",
        *(f"| saved | {line} |" for line in savings(summary)),
        *(f"| prompt cache | {line} |" for line in summary.prompt_cache.why_not()),
        *([f"| perhaps billed | {lost} |"] if summary.perhaps_billed else []),
        *([f"| pace | {pace} |"] if pace else []),
        f"| answered 429 | {summary.rate_limited:,} |",
        *(f"| note | {_cell(note)} |" for note in summary.notes),
        f"| time | {summary.wall_s:,.1f} s |",
        f"| run | `{summary.run_id}` |",
    ]
    if summary.failures:
        lines += [
            "",
            "## Without content",
            "| step | record | status | kind | look at it |",
            "|---|---|---|---|---|",
            *(
                f"| {failure.step} | {_cell(failure.record_key)} | {failure.status} | {_cell(failure.kind or '')} | "
                f"`presswork show {failure.generation_id}` |"
                for failure in summary.failures
            ),
        ]
    return "\n".join(lines)


def money(summary: Summary) -> str:
    """Say a cost in dollars, and what it lacks."""
    if summary.cost_usd is None:
        return "unknown (no price for the model or for how it ran, or the endpoint tells no usage)"
    lacks = f" and {summary.unpriced:,} requests of unknown price" if summary.unpriced else ""
    return f"${summary.cost_usd:,.4f}{lacks}"


def _step_row(step: StepSummary) -> str:
    return f"| {step.step} | " + " | ".join(f"{getattr(step, name):,}" for name in COUNTS) + " |"


def _cell(text: str) -> str:
    # A record's key is data: it must not end the cell, or become markup or a link. A backslash is what both of
    # Prefect's UIs take away again; the older one shows entities in a table as they are.
    return "".join(
        character
        if character.isalnum() or character in " -"
        else f"\\{character}"
        if character in punctuation
        else character
        if character.isprintable()
        else f"U\\+{ord(character):04X}"
        for character in text
    )
