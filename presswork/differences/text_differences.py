"""Compare two texts word by word: sentences and lines first, then the words inside those that changed.

In two levels 200 kB with a third changed take 30 ms and 20 MB; comparing all words at once takes half a second and half
a gigabyte, and difflib three quarters of a minute.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from presswork.differences.alignment import align
from presswork.differences.operations import Operation, made_of
from presswork.differences.word_tokens import lines, sentences, words

LONG_TEXT = 500_000
"""A text with more characters than this is cut at lines first."""
LONG_HUNK = 500_000
"""Characters, old and new together, from which on a changed hunk is shown whole."""
MANY_LINES = 100_000
"""Lines from which on two texts are not aligned, and their difference is shown whole: it would take seconds."""
SWALLOWED = 3
"""Equal runs with fewer tokens than this, between two changes, become part of the change."""
Pair = tuple[str, str]
Cut = Callable[[str], list[str]]


def compare_texts(old: str, new: str) -> list[Operation]:
    """Return the operations that turn `old` into `new`; an empty list for two empty texts."""
    if max(old.count("\n"), new.count("\n")) > MANY_LINES:
        return made_of([(old, new)])
    is_long = max(len(old), len(new)) > LONG_TEXT
    return made_of(_compare(old, new, (lines, sentences, words) if is_long else (sentences, words)))


def _compare(old: str, new: str, cuts: Sequence[Cut]) -> Iterator[Pair]:
    """Compare two texts by the first cut, and what differs by the finer ones."""
    is_long = cuts[0] is not lines and len(old) + len(new) > LONG_HUNK
    if not (old and new) or old == new or is_long:
        yield old, new
        return
    hunks = _swallowed(_pairs(old, new, cuts[0]))
    if len(cuts) == 1:
        yield from hunks
    else:
        for hunk in hunks:
            yield from _compare(*hunk, cuts[1:])


def _pairs(old: str, new: str, cut: Cut) -> Iterator[Pair]:
    """Cut both texts and yield pairs of pieces, equal and changed ones in turn."""
    old_pieces, new_pieces = cut(old), cut(new)
    end = (len(old_pieces), len(new_pieces), 0)
    old_at = new_at = 0
    for in_old, in_new, length in [*align(old_pieces, new_pieces), end]:
        yield _text(old_pieces, old_at, in_old), _text(new_pieces, new_at, in_new)
        old_at, new_at = in_old + length, in_new + length
        equal = _text(old_pieces, in_old, old_at)
        yield equal, equal


def _text(pieces: Sequence[str], begin: int, end: int) -> str:
    return "".join(pieces[begin:end])


def _swallowed(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Join changes that only a word or two separate: one change of five words reads better than three of one."""
    found = [pair for pair in pairs if any(pair)]
    changed: list[Pair] = []
    for place, pair in enumerate(found):
        is_between = bool(changed) and place < len(found) - 1
        if pair[0] == pair[1] and not (is_between and _is_short(pair[0])):
            yield _both(changed)
            yield pair
            changed = []
        else:
            changed.append(pair)
    yield _both(changed)


def _both(pairs: Sequence[Pair]) -> Pair:
    return "".join(old for old, _new in pairs), "".join(new for _old, new in pairs)


def _is_short(text: str) -> bool:
    # A line break is kept, so that changed lines stay lines.
    return len(text) < 100 and "\n" not in text and len(words(text)) < SWALLOWED
