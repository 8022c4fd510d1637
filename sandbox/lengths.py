"""Fit a text to the length of its field in sentences, words and characters. Characters matter most.

It chooses whole pieces that fit. Only if none fits, it cuts one, but never between a number and its unit.
"""

import re
from collections.abc import Iterable, Iterator

from sandbox.hints import ANY_COUNT, Span
from sandbox.prose import LINES, Alternatives, ProseWriter
from sandbox.shapes import Text
from sandbox.stop_words import STOP_WORDS

# After this many pieces that do not fit, none will.
_TIRED = 24
_SMALL = ("Splendid", "Lovely", "Good", "Yes", "OK", "A")
_LETTER_ROOM = 90
_WIDE_LINE = 1_000
_DANGLING = STOP_WORDS | {"-", "\u2013", "&", "meet"}
_WIDE_STOPS = "\u3002\uff01\uff1f\u300d"
_WIDE = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
_UNIT = re.compile(r"[^\W\d]{1,3}\b|[%\u00b0\u20ac$\u00a3]")
_WHOLE_NUMBER = re.compile(r"\d(?:[\d.,:/-]*\d)?")
_INITIAL = re.compile(r"[^\W\d]\.|[^\W\d]\.[^\W\d]\.")


def sized_text(writer: ProseWriter, shape: Text) -> str:
    """A text of the shape's form and length."""
    if shape.form in LINES:
        text = _line(writer, shape)
    elif shape.form == "letter" and (shape.chars.high is None or shape.chars.high > _LETTER_ROOM * 2):
        greeting, pieces, closing = writer.letter()
        extra = greeting.count(" ") + closing.count(" ") + 3
        room = _Room(shape, characters=len(greeting) + len(closing) + 4, words=extra)
        text = f"{greeting}\n\n{room.joined(pieces)}\n\n{closing}"
    else:
        text = _Room(shape).joined(writer.pieces(shape.form)) or _word(writer, shape.chars)
    if shape.words is not ANY_COUNT:
        text = _fit_words(writer, text, shape.words)
    return fit_chars(writer, text, shape.chars)


def _line(writer: ProseWriter, shape: Text) -> str:
    """The first wording that fits, else the shortest that is long enough, else the first."""
    low, high, words = shape.chars.low, shape.chars.high, shape.words
    first = shortest = ""
    for line in writer.lines(shape.form, high or _WIDE_LINE):
        first = first or line
        if len(line) >= low and (high is None or len(line) <= high) and _within(line, words):
            writer.use(line)
            return line
        if low <= len(line) and (not shortest or len(line) < len(shortest)):
            shortest = line
    return shortest or first


def _word(writer: ProseWriter, chars: Span) -> str:
    """A word for a field that is too small for a sentence; empty if none fits."""
    words = (*writer.topic.subject.split(), *writer.topic.terms, *_SMALL)
    return next((word for word in words if chars.low <= len(word) <= (chars.high or len(word))), "")


class _Room:
    """How much of a field is left for its sentences."""

    def __init__(self, shape: Text, characters: int = 0, words: int = 0) -> None:
        """Reserve characters and words, such as those of a letter's greeting and closing."""
        chars, counts = shape.chars, shape.words
        self._chars = Span(max(0, chars.low - characters), None if chars.high is None else chars.high - characters)
        high = None if counts.high is None else max(1, counts.high - words)
        self._words = Span(max(0, counts.low - words), high)
        target = max(1, shape.target - words)
        spoken = shape.sentences
        self._most = spoken.high
        self._least = spoken.low
        if spoken.high is not None and counts is ANY_COUNT:
            target = 0
            self._least = max(1, spoken.low, (spoken.low + spoken.high) // 2)
        self._target = target

    def joined(self, pieces: Iterator[Alternatives]) -> str:
        """Join fitting pieces until the text is long enough."""
        text, count, words, tired = "", 0, 0, 0
        for alternatives in pieces:
            if not alternatives:
                if self._is_enough(text, count):
                    break
                continue
            longer = next((whole for whole in _added(text, alternatives) if self._fits(whole)), None)
            if longer is None:
                tired += 1
                if tired > _TIRED:
                    break
                continue
            text, count, words = longer, count + 1, _length(longer)
            if count == self._most or (words >= self._target and self._is_enough(text, count)):
                break
        return text

    def _is_enough(self, text: str, count: int) -> bool:
        least = self._words.low
        return count >= max(1, self._least) and text.count(" ") >= least - 1 and len(text) >= self._chars.low

    def _fits(self, text: str) -> bool:
        if self._chars.high is not None and len(text) > self._chars.high:
            return False
        return self._words.high is None or text.count(" ") < self._words.high


def _length(text: str) -> int:
    """The number of words in a text. In scripts without spaces, two characters count as a word."""
    return text.count(" ") + 1 + (0 if text.isascii() else len(_WIDE.findall(text)) // 2)


def _added(text: str, alternatives: Iterable[str]) -> Iterator[str]:
    if not text:
        return iter(alternatives)
    space = "" if text[-1] in _WIDE_STOPS else " "
    return (f"{text}{space}{piece}" for piece in alternatives)


def _within(text: str, words: Span) -> bool:
    return words is ANY_COUNT or (
        words.low <= len(text.split()) and (words.high is None or len(text.split()) <= words.high)
    )


def _fit_words(writer: ProseWriter, text: str, words: Span) -> str:
    low, high = words.low, words.high
    count = len(text.split())
    while count < low:
        text = f"{text} {writer.sentence()}".strip()
        count = len(text.split())
    if high is None or count <= high:
        return text
    cut = cut_words(text, high)
    # The tidy cut may be a word too short; then the plain cut is used.
    return cut if len(cut.split()) >= low else " ".join(text.split()[:high])


def fit_chars(writer: ProseWriter, text: str, chars: Span) -> str:
    """Fit a text to a range of characters. It never starts or ends with a space."""
    while len(text) < chars.low:
        text = f"{text} {writer.sentence()}".strip()
    if chars.high is None or len(text) <= chars.high:
        return text
    return _cut_chars(text, chars.low, chars.high)


def cut_words(text: str, most: int) -> str:
    """Cut a text to at most this many words. It ends like a text, not with a joining word."""
    parts = text.split(None, most)
    return text if len(parts) <= most else tidy(text[: -len(parts[most])].rstrip(), text)


def tidy(part: str, whole: str) -> str:
    """A part of a text without joining words at its end, and with the full stop of the whole."""
    rest = whole[len(part) :].lstrip()
    words = part.rstrip(" ,;:-\n").split(" ")
    # Keep a number with its unit, and initials with their name.
    if len(words) > 1 and ((words[-1][-1:].isdigit() and _UNIT.match(rest)) or _INITIAL.fullmatch(words[-1])):
        words.pop()
    while len(words) > 1 and words[-1].lower().rstrip(".,") in _DANGLING:
        words.pop()
    text = " ".join(words).rstrip(" ,;:-\n")
    return text + "." if whole.endswith(".") and text[-1:] not in ".!?" else text


def _cut_chars(text: str, low: int, high: int) -> str:
    room = high - 1 if text.endswith(".") and high > 1 else high
    end = text.rfind(" ", 0, room + 1)
    if end > 0:
        cut = tidy(text[:end], text)
        if low <= len(cut) <= high:
            return cut
    number = next((match for match in _WHOLE_NUMBER.finditer(text) if match.start() < high < match.end()), None)
    if number is not None:  # dots in its place, since no end of a word is far enough
        return text[: number.start()].rstrip().ljust(low, ".")
    cut = text[:high]
    # A validator may strip spaces, and a text that ends with one would be too short.
    return cut[:-1] + "s" if cut.endswith((" ", "\n")) else cut
