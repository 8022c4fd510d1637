"""Show a hit: the found words within the text around them, cut from the stored text itself."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from db.search.tokens import WordQuery

WIDTH = 200
"""The number of characters of a text that are shown with a hit."""
_BEFORE = 60
_LONGEST = 200_000
"""Characters of a text in which the words are looked for; in a longer one the beginning is shown."""
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text; `is_found` if it is one of the words that were searched for."""

    text: str
    is_found: bool = False


def surroundings(query: WordQuery, texts: Sequence[str]) -> list[Piece]:
    """Cut out the place in an answer's texts where most of the words are near each other, on one line.

    A word that is stored in another spelling, such as with a ligature, may stay unmarked. The text is as hostile as it
    was: make it visible before it is shown.
    """
    pattern = _pattern(query)
    whole = " \u00b7 ".join(_BLANKS.sub(" ", unicodedata.normalize("NFC", text)).strip() for text in texts)[:_LONGEST]
    found = [match.span() for match in pattern.finditer(whole)]
    first = found[0][0] if found else 0
    begin = max(first - _BEFORE, 0)
    # Not in the middle of a word, if one begins nearby.
    blank = whole.find(" ", begin, first) if begin else -1
    begin = begin if blank < 0 else blank + 1
    end = min(begin + WIDTH, len(whole))
    pieces = list(_pieces(whole, [(a, b) for a, b in found if a >= begin and b <= end], begin, end))
    head = [Piece("…")] if begin else []
    return [*head, *pieces, *([Piece("…")] if end < len(whole) else [])]


def _pieces(text: str, found: Sequence[tuple[int, int]], begin: int, end: int) -> Iterator[Piece]:
    for start, stop in found:
        if begin < start:
            yield Piece(text[begin:start])
        yield Piece(text[start:stop], is_found=True)
        begin = stop
    if begin < end:
        yield Piece(text[begin:end])


@lru_cache(maxsize=8)
def _pattern(query: WordQuery) -> re.Pattern[str]:
    """Match each phrase, the longest first; what stands between its words may be anything that is no word."""
    phrases = sorted(query.phrases, key=lambda phrase: (-len(phrase), -len(" ".join(phrase))))
    return re.compile("|".join(map(_phrase_pattern, phrases)), re.IGNORECASE)


def _phrase_pattern(words: tuple[str, ...]) -> str:
    # A word of one ideograph has no edges: the next one follows at once.
    begin = r"(?<!\w)" if words[0].isascii() else ""
    end = r"(?!\w)" if words[-1].isascii() else ""
    return begin + r"[\W_]{0,9}".join(map(re.escape, words)) + end
