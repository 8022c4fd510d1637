"""Write a change so that a reader can see it, also if it is white space, or letters that look alike."""

from unicodedata import normalize

from presswork.differences.operations import Operation
from presswork.escaping import visible

_BLANKS = {" ": "␣", "\t": "⇥\t", "\n": "⏎\n", "\r": "␍"}


def old_text(operation: Operation) -> str:
    """Return the old side of a change, made visible."""
    return _shown(operation.old, operation.new)


def new_text(operation: Operation) -> str:
    """Return the new side of a change, made visible."""
    return _shown(operation.new, operation.old)


def _shown(text: str, other: str) -> str:
    if text.split() == other.split() or not text.strip():
        return "".join(_blank(letter) if letter.isspace() else visible(letter) for letter in text)
    if visible(text) == text and normalize("NFKC", text) == normalize("NFKC", other):
        # Such as an accent as a sign of its own: both look the same.
        return "".join(letter if letter.isascii() else f"{letter}⟨U+{ord(letter):04X}⟩" for letter in text)
    return visible(text)


def _blank(letter: str) -> str:
    return _BLANKS.get(letter) or f"⟨U+{ord(letter):04X}⟩"
