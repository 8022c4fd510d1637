"""Read the lines of a prompt: numbered lines, sentences to repeat, and names."""

import re
from functools import lru_cache
from typing import NamedTuple

from sandbox.plain_text import sentences
from sandbox.record_fields import is_nothing

LONGEST_SENTENCE = 400
_SHORTENED = 100
_LONGEST_NAME = 60
_LISTED = re.compile(r"[ \t]*(?:#|\[|\()?(\d{1,4})[.)\]:][ \t]+(\S.*)")
_NUMBER_STARTS = frozenset("#[(0123456789")
_BULLET = re.compile(r"[ \t]*[-*\u2022\u00b7][ \t]+(\S.*)")
_BULLETS = frozenset("-*\u2022\u00b7")
_STOPS = tuple(".!?\u3002\uff01\uff1f\u061f")
_WIDE_STOPS = ("\u3002", "\uff01", "\uff1f")
_NUMBERED = re.compile(r"\(?\d{1,2}[.)]\s+")
_REPLIED = re.compile(r"(?:(?:re|fwd?|aw)\s*:\s*)+", re.IGNORECASE)
_NAME_END = re.compile(r"\s+[-\u2013\u2014|/]\s+|[;:,(]\s*|[.!?]\s")
# Orders of the prompt's author are not text to write about.
_ORDER = re.compile(
    r"(?:(?:please|now|then|kindly) )?(?:write|describe|summari[sz]e|translate|classify|generate|create|answer|reply"
    r"|return|respond|extract|give|list|rate|rank|choose|pick|decide|explain|draft|compose|improve|rewrite|produce"
    r"|suggest|you are|your task)\b",
    re.IGNORECASE,
)
# The words after "about" in such an order are its subject.
_ABOUT = re.compile(
    r"\b(?:about|on|for|of)\s+(?:(?:the|a|an|this|these|following)\s+)*([^\s:.?!][^:?!\n]*?)(?:[:?!\n]|\.(?:\s|$)|$)"
)
_GREETING = re.compile(
    r"(?:hello|hi|hey|dear|thanks|thank you|kind regards|best|regards|yours|cheers|guten tag|hallo|bonjour|hola"
    r"|ol\u00e1|ciao|viele gr)\b",
    re.IGNORECASE,
)
_FEW_SPACES = 3
_SHORT_GREETING = 6
_FEW_BYTES = 20


class PromptLine(NamedTuple):
    """A line. A numbered or bulleted one has its number and the text after it."""

    text: str
    number: str = ""
    item: str = ""


def read_line(text: str) -> PromptLine:
    """Read a line that is not empty."""
    first = text.lstrip()[0]
    if first in _NUMBER_STARTS:
        match = _LISTED.fullmatch(text)
        return PromptLine(text, match[1], match[2]) if match else PromptLine(text)
    match = _BULLET.fullmatch(text) if first in _BULLETS else None
    return PromptLine(text, item=match[1]) if match else PromptLine(text)


def is_prose(value: str) -> bool:
    """Whether a value consists of whole sentences."""
    end = value.rstrip("\"')\u201d")[-1:]
    return end in _STOPS and (end in _WIDE_STOPS or (len(value) > _FEW_BYTES and value.count(" ") > _FEW_SPACES))


@lru_cache(maxsize=256)
def repeatable(text: str, least_spaces: int = _FEW_SPACES) -> tuple[str, ...]:
    """The sentences of a text that can be repeated, without their numbers. Very long ones are cut."""
    found = [_NUMBERED.sub("", sentence, 1) for sentence in sentences(text) if _is_telling(sentence, least_spaces)]
    return tuple(sentence if len(sentence) < LONGEST_SENTENCE else shortened(sentence) for sentence in found)


def shortened(text: str) -> str:
    """The beginning of a long text, up to the end of a word."""
    space = text.rfind(" ", 0, _SHORTENED)
    return f"{text[: space if space > 0 else _SHORTENED].rstrip(' ,;:.')} ..."


def name_of(value: str) -> str:
    """A name; of a long one, its first part."""
    value = _REPLIED.sub("", value.strip(), 1).rstrip(".,;:\u3002").strip() or value.strip()
    if len(value) <= _LONGEST_NAME:
        return value
    for match in _NAME_END.finditer(value, 8, _LONGEST_NAME):
        return value[: match.start()]
    space = value.rfind(" ", 0, _LONGEST_NAME)
    return value[: space if space > 0 else _LONGEST_NAME]


def ordered_subject(line: str) -> str | None:
    """The subject of an order ("autumn rain" in "Write a haiku about autumn rain."); None if the line is no order."""
    if not _ORDER.match(line):
        return None
    match = _ABOUT.search(line)
    return name_of(match[1]) if match else ""


def _is_telling(sentence: str, least_spaces: int) -> bool:
    """Whether a sentence can be repeated: it is neither a greeting nor an order, and has more than a few words."""
    spaces = sentence.count(" ")
    if spaces < least_spaces and (sentence.isascii() or len(sentence.encode()) < _FEW_BYTES):
        return False
    if is_nothing(sentence) or sentence[-1] in ",:" or _ORDER.match(sentence):
        return False
    return spaces > _SHORT_GREETING or not _GREETING.match(sentence)
