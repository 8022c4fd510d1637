"""Making a text as long as its field wants it: words, sentences and characters, the characters above all."""

from sandbox.hints import ANY_COUNT, Span
from sandbox.prose import ProseWriter, cut_words, tidy
from sandbox.shapes import Text


def sized_text(writer: ProseWriter, shape: Text) -> str:
    """A text of the shape's form and length."""
    if shape.sentences.high is not None and shape.form != "letter":
        text = writer.sentences(
            max(1, shape.sentences.low, (shape.sentences.low + shape.sentences.high) // 2), shape.form
        )
    else:
        text = writer.text(shape.form, shape.target)
    if shape.words is not ANY_COUNT:
        text = _fit_words(writer, text, shape.words)
    return fit_chars(writer, text, shape.chars)


def _fit_words(writer: ProseWriter, text: str, words: Span) -> str:
    low, high = words.low, words.high
    count = len(text.split())
    while count < low:
        text = f"{text} {writer.sentence()}"
        count = len(text.split())
    if high is None or count <= high:
        return text
    cut = cut_words(text, high)
    # Where tidying the end took a word too many, the plain cut will do.
    return cut if len(cut.split()) >= low else " ".join(text.split()[:high])


def fit_chars(writer: ProseWriter, text: str, chars: Span) -> str:
    """At least and at most so many characters, never beginning or ending in a space."""
    while len(text) < chars.low:
        more = writer.sentence() if chars.low - len(text) > 40 or text.endswith(".") else writer.phrase()
        text = f"{text} {more}" if text else more
    if chars.high is None or len(text) <= chars.high:
        return text
    return _cut_chars(text, chars.low, chars.high)


def _cut_chars(text: str, low: int, high: int) -> str:
    room = high - 1 if text.endswith(".") and high > 1 else high
    end = text.rfind(" ", 0, room + 1)
    if end > 0:
        cut = tidy(text[:end], text)
        if low <= len(cut) <= high:
            return cut
    cut = text[:high]
    # Validators may strip spaces, and a text that ends in one would then be too short.
    return cut[:-1] + "s" if cut.endswith((" ", "\n")) else cut
