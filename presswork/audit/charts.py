"""Compute the bars of a chart, which a macro draws as SVG: no script, no style attribute, colours by class.

The drawing is stretched to the width that it gets, so all words stand outside of it, as HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup

_WIDTH, _HEIGHT = 1000, 200
_GAP_SHARE = 0.22
"""The part of a bar's room that stays empty."""
_LEAST = 1.5  # a value that is not 0 can be seen
_AXIS_LABELS = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of one or more parts, from bottom to top: a class of the style sheet and a value each.

    `values` are the cells of its row in the table, `said` is its tooltip and its name for a screen reader.
    """

    label: str
    parts: Sequence[tuple[str, Decimal | int]]
    values: Sequence[Markup | str]
    said: str
    href: str | None = None


@dataclass(frozen=True, slots=True)
class BarPart:
    """A rectangle."""

    look: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class DrawnBar:
    """A bar with its rectangles; `x` and `width` are its whole room, which is a link."""

    label: str
    values: Sequence[Markup | str]
    said: str
    href: str | None
    x: float
    width: float
    parts: tuple[BarPart, ...]


@dataclass(frozen=True, slots=True)
class BarChart:
    """A chart as the macro `chart` draws it; `top` says what the greatest bar is."""

    title: str
    by: str
    said: str
    top: Markup | str
    keys: Sequence[tuple[str, str]]
    columns: Sequence[tuple[str, str]]
    axis: tuple[str, ...]
    bars: tuple[DrawnBar, ...]
    width: int = _WIDTH
    height: int = _HEIGHT


def bar_chart(
    title: str,
    bars: Sequence[Bar],
    *,
    by: str,
    columns: Sequence[str],
    top: Markup | str = "",
    keys: Sequence[tuple[str, str]] = (),
    said: str = "",
) -> BarChart:
    """Compute a chart of bars from left to right; `columns` name the cells of its table, `keys` its classes."""
    greatest = max((_height(bar) for bar in bars), default=0.0) or 1.0
    room = _WIDTH / max(len(bars), 1)
    return BarChart(
        title=title,
        by=by,
        said=said or f"{title}, {len(bars)} bars",
        top=top,
        keys=keys,
        columns=[(name, "num") for name in columns],
        axis=_axis([bar.label for bar in bars]),
        bars=tuple(_drawn(bar, place * room, room, _HEIGHT / greatest) for place, bar in enumerate(bars)),
    )


def _drawn(bar: Bar, x: float, room: float, scale: float) -> DrawnBar:
    parts, y = [], float(_HEIGHT)
    for look, value in bar.parts:
        if value > 0:
            height = min(max(float(value) * scale, _LEAST), y)
            y -= height
            gap = room * _GAP_SHARE
            parts.append(BarPart(look, round(x + gap / 2, 2), round(y, 2), round(room - gap, 2), round(height, 2)))
    return DrawnBar(bar.label, bar.values, bar.said, bar.href, round(x, 2), round(room, 2), tuple(parts))


def _height(bar: Bar) -> float:
    return float(sum(value for _look, value in bar.parts if value > 0))


def _axis(labels: Sequence[str]) -> tuple[str, ...]:
    """Choose the labels that stand below: the first, the middle and the last one."""
    if len(labels) <= _AXIS_LABELS:
        return tuple(labels)
    return labels[0], labels[len(labels) // 2], labels[-1]
