"""Divide texts into the words that a search compares. Index and query use this one rule, on every database.

A word is a run of letters, digits and their marks, in lower case; everything else separates words. Scripts that put no
blanks between words (Chinese, Japanese, Thai, ...) and Korean, which joins endings to words, have one word a character:
so any part of a sentence is found, as a phrase. Invisible characters are ignored. Accents count.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

COMPARED_LENGTH = 100
"""The number of characters of a word that are compared."""
MOST_WORDS = 50
"""The maximum number of words in a query."""
BOUNDARY = "\ue000"
"""The word between two texts of one answer, so that no phrase crosses it; it can't be in a text or a query."""
# Hangul, kana and ideographs; the scripts of South-East Asia.
_SINGLE = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x11FF),
    (0x1780, 0x17FF),
    (0x1950, 0x19DF),
    (0x1A20, 0x1AAF),
    (0x2E80, 0xA4CF),
    (0xA960, 0xA97F),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0x16FE0, 0x1B2FF),
    (0x20000, 0x3FFFF),
)
_PIECE = re.compile(r'"([^"]*)"?|([^\s"]+)')
_QUOTES = str.maketrans("\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02", '"' * 7)


class _Spelling(dict[int, str | None]):
    """What str.translate puts for each character: itself, a blank, itself between blanks, or nothing."""

    def __missing__(self, code: int) -> str | None:
        self[code] = found = _spelled(chr(code), code)
        return found


def _spelled(character: str, code: int) -> str | None:
    category = unicodedata.category(character)
    if category == "Cf" or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return None
    if category[0] not in "LNM":
        return " "
    return f" {character} " if any(first <= code <= last for first, last in _SINGLE) else character


_spelling = _Spelling()


@dataclass(frozen=True, slots=True)
class WordQuery:
    """Words to search for: phrases of one or more words, which must all be in a generation's texts."""

    phrases: tuple[tuple[str, ...], ...]

    @property
    def words(self) -> list[str]:
        """All words, each once."""
        return list(dict.fromkeys(word for phrase in self.phrases for word in phrase))

    def matches(self, spaced: str) -> bool:
        """Whether texts, as `spaced_words` returns them, have all the phrases."""
        return all(f" {' '.join(phrase)} " in spaced for phrase in self.phrases)


class QueryError(ValueError):
    """Words that can't be searched for."""


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order, as they are compared."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = text.translate(_spelling).lower().split()
    return [word[:COMPARED_LENGTH] for word in words] if any(len(word) > COMPARED_LENGTH for word in words) else words


def spaced_words(texts: Iterable[str]) -> str:
    """Return the words of texts with a blank on each side, and a BOUNDARY between two texts."""
    return f" {f' {BOUNDARY} '.join(' '.join(words_of(text)) for text in texts)} "


def parse_query(text: str) -> WordQuery:
    """Read a query: words, and phrases in quotes. Raises QueryError if it has no word, or too many.

    A piece such as `e-mail`, which is several words, is a phrase. A quote that is not closed lasts to the end.
    """
    phrases = tuple(dict.fromkeys(_phrases(text)))
    if not phrases:
        raise QueryError("There is no word to search for: a word has letters or digits.")
    if sum(map(len, phrases)) > MOST_WORDS:
        raise QueryError(f"These are too many words to search for. Use at most {MOST_WORDS}.")
    return WordQuery(phrases)


def _phrases(text: str) -> Iterator[tuple[str, ...]]:
    for piece in _PIECE.finditer(text.translate(_QUOTES)):
        words = words_of(piece[1] if piece[1] is not None else piece[2])
        if words:
            yield tuple(words)
