"""Write differences as HTML: what was removed and added is marked by elements, colours, and words for screen readers.

Long equal texts are folded. A change of a million words would be no page, so what is too long is cut and says so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from presswork.differences.changed_text import new_text, old_text
from presswork.differences.operations import FoldedText, Operation, folded
from presswork.escaping import visible

MOST_PARTS, MOST_CHARACTERS = 1_500, 120_000
"""Of one change on a page; the JSON has all."""
MOST_FOLDED = 20_000
"""A longer equal text is left out instead of folded."""
ALIKE = 0.4
"""A change is shown in one text if this share of it is equal, else both texts are shown side by side."""
# Words for screen readers. <bdi>, so that they don't decide the direction of the text around them.
_REMOVED = Markup('<del><bdi class="unseen">[removed: </bdi>{}<bdi class="unseen">]</bdi></del>')
_ADDED = Markup('<ins><bdi class="unseen">[added: </bdi>{}<bdi class="unseen">]</bdi></ins>')
_FOLDED = Markup('<details class="folded"><summary><bdi>{:,} equal characters</bdi></summary>{}</details>')
_LEFT_OUT = Markup('<bdi class="folded">{:,} equal characters</bdi>')
_TEXT = Markup('<div class="text passage" dir="auto">{}</div>')
_CUT = Markup(
    '<p class="said">The rest of this change is too long for a page. The JSON of this page has all of it.</p>'
)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A part of both texts, for two columns: either equal text in both, or a hunk of the old and of the new one."""

    old: Markup
    new: Markup


def in_one_text(operations: Sequence[Operation]) -> Markup:
    """Write both texts as one, with marks."""
    parts, is_cut = _limited(folded(operations))
    return _TEXT.format(_joined(_inline(part) for part in parts)) + (_CUT if is_cut else Markup(""))


def in_columns(operations: Sequence[Operation]) -> list[SideBySide]:
    """Write both texts for two columns, in rows that begin after each folded text."""
    parts, is_cut = _limited(folded(operations))
    rows: list[SideBySide] = []
    hunk: list[Operation] = []
    for part in parts:
        if isinstance(part, FoldedText):
            rows += _row(hunk)
            hunk = []
            rows.append(SideBySide(_inline(part), _inline(part)))
        else:
            hunk.append(part)
    rows += _row(hunk)
    return rows + ([SideBySide(_CUT, _CUT)] if is_cut else [])


def is_alike(operations: Sequence[Operation]) -> bool:
    """Whether both texts have so much in common that one text with marks reads well."""
    whole = sum(max(len(each.old), len(each.new)) for each in operations)
    equal = sum(len(each.old) for each in operations if each.is_equal)
    has_both = any(each.old for each in operations) and any(each.new for each in operations)
    return equal >= ALIKE * whole or not has_both


def _row(hunk: Sequence[Operation]) -> list[SideBySide]:
    if not hunk:
        return []
    old, new = (_joined(_equal(part) if part.is_equal else mark(part) for part in hunk) for mark in (_old, _new))
    return [SideBySide(_TEXT.format(old), _TEXT.format(new))]


def _inline(part: Operation | FoldedText) -> Markup:
    if isinstance(part, FoldedText):
        length = len(part.text)
        is_short = length <= MOST_FOLDED
        return _FOLDED.format(length, visible(part.text)) if is_short else _LEFT_OUT.format(length)
    return _equal(part) if part.is_equal else _old(part) + _new(part)


def _equal(part: Operation) -> Markup:
    return Markup("{}").format(visible(part.old))


def _old(part: Operation) -> Markup:
    return _REMOVED.format(old_text(part)) if part.old else Markup("")


def _new(part: Operation) -> Markup:
    return _ADDED.format(new_text(part)) if part.new else Markup("")


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _limited(parts: Iterable[Operation | FoldedText]) -> tuple[list[Operation | FoldedText], bool]:
    """Take parts up to the limits of a page; return whether some are missing."""
    found: list[Operation | FoldedText] = []
    left = MOST_CHARACTERS
    for part in parts:
        if left <= 0 or len(found) >= MOST_PARTS:
            return found, True
        shorter = _shortened(part, left)
        left -= _length(part)
        found.append(shorter)
    return found, left < 0


def _length(part: Operation | FoldedText) -> int:
    if isinstance(part, FoldedText):
        return len(part.text) if len(part.text) <= MOST_FOLDED else 0
    return len(part.old) + (0 if part.is_equal else len(part.new))


def _shortened(part: Operation | FoldedText, left: int) -> Operation | FoldedText:
    if _length(part) <= left or isinstance(part, FoldedText):
        return part
    return Operation(part.kind, part.old[:left], part.new[:left])


CHANGE_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "in_one_text": in_one_text,
    "in_columns": in_columns,
    "is_alike": is_alike,
}
"""The functions that pages use, by their names in templates."""
