"""Show a run on its page in the Prefect UI: ids, counts and the record keys of failures, but no text.

The steps and their results are drawn as an SVG image with its data in its address. Both of Prefect's UIs render such
an image in an artifact; only one of them draws Mermaid. The image holds names of steps and counts.
"""

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape
from string import punctuation

from prefect.artifacts import acreate_markdown_artifact

from db.words import SANDBOX
from presswork.report.amounts import duration
from presswork.report.summary import COUNTS, SANDBOX_SAYS, StepSummary, Summary, summary_rows

SUMMARY_KEY = "presswork-summary"
_COLUMNS = ("generations", *COUNTS)
_MARKUP = frozenset(punctuation) - {"-"}
_FREE = ("endpoint", "note")
"""Rows whose values may hold text from outside."""
BOX, HEIGHT, GAP, MARGIN = 260, 50, 26, 8
GOOD_COLOR, LACKING_COLOR, RECORDS_COLOR = "#1b7f4b", "#b45309", "#475569"


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
    places = _places(steps)
    parts = [_box((0, 0), "records", f"{records:,}", RECORDS_COLOR)]
    for step in steps:
        place = places[step.step]
        parts.append(_line(places.get(step.made_from or "", (0, 0)), place))
        without = step.without_content + step.left_out
        counts = f"{step.with_content:,} with content" + (f", {without:,} without" if without else "")
        parts.append(_box(place, step.step, counts, LACKING_COLOR if without else GOOD_COLOR))
    deep = max(row for row, _column in places.values()) + 1
    wide = max(column for _row, column in places.values()) + 1
    width, height = wide * (BOX + GAP) - GAP + 2 * MARGIN, deep * (HEIGHT + GAP) - GAP + 2 * MARGIN
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif">'
        f'<rect width="{width}" height="{height}" rx="8" fill="#f8fafc"/>{"".join(parts)}</svg>'
    )
    said = ", ".join(f"{step.step} {step.with_content:,}" for step in steps)
    return f"![records {records:,}, {said}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _places(steps: Sequence[StepSummary]) -> dict[str, tuple[int, int]]:
    """Place each step one row below the step that it was made from, next to others of the same depth."""
    found: dict[str, tuple[int, int]] = {}
    taken: Counter[int] = Counter()
    for step in steps:
        row = found.get(step.made_from or "", (0, 0))[0] + 1
        found[step.step] = (row, taken[row])
        taken[row] += 1
    return found


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    row, column = place
    return MARGIN + column * (BOX + GAP), MARGIN + row * (HEIGHT + GAP)


def _box(place: tuple[int, int], title: str, counts: str, color: str) -> str:
    x, y = _corner(place)
    return (
        f'<rect x="{x}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6" fill="#fff" stroke="{color}"/>'
        f'<text x="{x + 12}" y="{y + 21}" font-size="14" font-weight="600" fill="#0f172a">{escape(title)}</text>'
        f'<text x="{x + 12}" y="{y + 39}" font-size="12.5" fill="{color}">{escape(counts)}</text>'
    )


def _line(above: tuple[int, int], below: tuple[int, int]) -> str:
    (x1, y1), (x2, y2) = _corner(above), _corner(below)
    x1, y1, x2 = x1 + BOX // 2, y1 + HEIGHT, x2 + BOX // 2
    return (
        f'<path d="M{x1} {y1} V{y1 + GAP // 2} H{x2} V{y2 - 5}" '
        f'fill="none" stroke="{RECORDS_COLOR}" stroke-width="1.5"/>'
        f'<path d="M{x2 - 4} {y2 - 7} h8 l-4 7 z" fill="{RECORDS_COLOR}"/>'
    )
