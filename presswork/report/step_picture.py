"""Draw the steps of a run as SVG: each below the step that it was made from, with its counts.

Prefect's UI shows it as an image, with colours of its own; the audit room shows it in a page, with classes and links.
So the attributes are handed in.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from presswork.escaping import visible

BOX, HEIGHT, GAP, MARGIN = 260, 50, 26, 8
"""Sizes in pixels. All boxes are wider than BOX if the name of a step needs it."""
INDENT, A_LETTER = 12, 9.5
WITH_ALL, WITH_GAPS, PLAIN = "good", "lacking", ""


class DrawnStep(Protocol):
    """A step with its counts."""

    @property
    def step(self) -> str:
        """Its name."""

    @property
    def made_from(self) -> str | None:
        """The step whose content is its input."""

    @property
    def left_out(self) -> int:
        """How many records an earlier step left without content."""

    @property
    def with_content(self) -> int:
        """How many generations have content."""

    @property
    def without_content(self) -> int:
        """How many generations have none."""


@dataclass(frozen=True, slots=True)
class Paint:
    """The attributes of each part. A box and its counts have them by how the step went: good, lacking, or ''."""

    ground: str
    box: Mapping[str, str]
    title: str
    counts: Mapping[str, str]
    line: str
    arrow: str


def steps_svg(records: int, steps: Sequence[DrawnStep], paint: Paint, link: Callable[[str], str] | None = None) -> str:
    """Return the picture; `link` gives the address of a step's rows. Names are escaped, attributes are not."""
    places, size = _places(steps), _width_of_boxes(steps)
    parts = [_box((0, 0), size, "records", f"{records:,}", PLAIN, paint)]
    for step in steps:
        place = places[step.step]
        parts.append(_line(places.get(step.made_from or "", (0, 0)), place, size, paint))
        without = step.without_content + step.left_out
        counts = f"{step.with_content:,} with content" + (f", {without:,} without" if without else "")
        box = _box(place, size, step.step, counts, WITH_GAPS if without else WITH_ALL, paint)
        parts.append(f'<a href="{escape(link(step.step))}">{box}</a>' if link is not None else box)
    deep = max((row for row, _column in places.values()), default=0) + 1
    wide = max((column for _row, column in places.values()), default=0) + 1
    width, height = wide * (size + GAP) - GAP + 2 * MARGIN, deep * (HEIGHT + GAP) - GAP + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif">'
        f'<rect width="{width}" height="{height}" rx="8" {paint.ground}/>{"".join(parts)}</svg>'
    )


def _places(steps: Sequence[DrawnStep]) -> dict[str, tuple[int, int]]:
    """Place each step one row below the step that it was made from, next to others of the same depth."""
    found: dict[str, tuple[int, int]] = {}
    taken: Counter[int] = Counter()
    for step in steps:
        row = found.get(step.made_from or "", (0, 0))[0] + 1
        found[step.step] = (row, taken[row])
        taken[row] += 1
    return found


def _width_of_boxes(steps: Sequence[DrawnStep]) -> int:
    """Return a width in which the longest name fits; A_LETTER is about the width of a letter in bold."""
    longest = max((len(visible(step.step)) for step in steps), default=0)
    return max(BOX, int(longest * A_LETTER) + 2 * INDENT)


def _corner(place: tuple[int, int], size: int) -> tuple[int, int]:
    row, column = place
    return MARGIN + column * (size + GAP), MARGIN + row * (HEIGHT + GAP)


def _box(place: tuple[int, int], size: int, title: str, counts: str, look: str, paint: Paint) -> str:
    x, y = _corner(place, size)
    title = escape(visible(title))
    return (
        f'<rect x="{x}" y="{y}" width="{size}" height="{HEIGHT}" rx="6" {paint.box[look]}/>'
        f'<text x="{x + INDENT}" y="{y + 21}" font-size="14" font-weight="600" {paint.title}>{title}</text>'
        f'<text x="{x + INDENT}" y="{y + 39}" font-size="12.5" {paint.counts[look]}>{escape(counts)}</text>'
    )


def _line(above: tuple[int, int], below: tuple[int, int], size: int, paint: Paint) -> str:
    (x1, y1), (x2, y2) = _corner(above, size), _corner(below, size)
    x1, y1, x2 = x1 + size // 2, y1 + HEIGHT, x2 + size // 2
    return (
        f'<path d="M{x1} {y1} V{y1 + GAP // 2} H{x2} V{y2 - 5}" {paint.line} stroke-width="1.5"/>'
        f'<path d="M{x2 - 4} {y2 - 7} h8 l-4 7 z" {paint.arrow}/>'
    )
