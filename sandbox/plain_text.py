"""Read text as people do: drop its markup, and find where sentences and clauses end.

A dot does not end a sentence in "21.00 USD", "J. R. Smith", "e.g. this", "v2.1" or "example.com".
"""

import html
import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")
_HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TAGGED = re.compile(r"<([A-Za-z][\w.-]{1,30})>[ \t]*([^<>\n]*)</\1>")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,300}>")
_HTML = frozenset(
    "a abbr b body br button code dd div dl dt em font h1 h2 h3 h4 h5 h6 head html i img li ol p pre s small"
    " span strong sub sup table tbody td th thead tr u ul".split()
)
_LINES = frozenset("br dd div dt h1 h2 h3 h4 h5 h6 li p td tr ul".split())
_MARKDOWN = re.compile(r"\*\*|__(?=\w)|(?<=\w)__|`+|^#{1,6}[ \t]+", re.MULTILINE)
_END = re.compile(
    r"[.!?\u2026]+[\"')\]\u201d\u2019\u00bb]*(?=\s)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]*|\u061f(?=\s)|\n"
)
_LONGEST_WORD = 40
# A dot after these does not end a sentence.
_SHORT = frozenset(
    "mr mrs ms dr prof st fr nr no nos vs approx ca cf e.g i.e eg ie fig vol feat ft art dept est tel mt gen col lt rev"
    " hon messrs mme mlle z.b d.h bzw str sra".split()
)
_CLAUSE = re.compile(r"\s*;\s+|\s*\n\s*|\s+[|\u00b7\u2022]\s+|[\u3001\uff1b]")
_JOINTS = frozenset(";\n|\u00b7\u2022\u3001\uff1b")
_COMMA = re.compile(r",\s+(?:and\s+|or\s+)?")


def plain(text: str) -> str:
    """The text without tags, entities, Markdown and control characters, as a model writes.

    `<name>Chai</name>` becomes a line "name: Chai".
    """
    text = _CONTROL.sub(" ", text)
    if "<" in text:
        text = _TAG.sub(_untagged, _TAGGED.sub(_labelled, _HIDDEN.sub(" ", text)))
    if "&" in text:
        text = html.unescape(text)
    return _MARKDOWN.sub("", text) if "*" in text or "#" in text or "`" in text or "__" in text else text


def _labelled(match: re.Match[str]) -> str:
    return match[0] if match[1].lower() in _HTML else f"\n{match[1]}: {match[2]}\n"


def _untagged(match: re.Match[str]) -> str:
    name = re.match(r"</?([A-Za-z][\w.-]*)", match[0])
    inline = name is not None and name[1].lower() in _HTML - _LINES
    return "" if inline else "\n"


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its full stop. A line without one counts too."""
    found, start = [], 0
    for match in _END.finditer(text):
        end = match.end()
        if match[0] != "\n" and not _ends(text, start, match):
            continue
        found.append(text[start:end].strip())
        start = end
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    following = text[match.end() : match.end() + 40].lstrip()[:1]
    if following.islower():
        return False
    if match[0][0] != ".":
        return True
    words = text[max(start, match.start() - _LONGEST_WORD) : match.start()].rsplit(None, 1)
    last = words[-1].lstrip("([\"'\u201c").lower() if words else ""
    return not (len(last) == 1 and last.isalpha() and last != "i") and last not in _SHORT


def clauses(value: str) -> list[str]:
    """The parts of a value between semicolons or bars, or between commas if all are short."""
    if not _JOINTS.isdisjoint(value):
        parts = [part for part in _CLAUSE.split(value) if part]
    else:
        parts = [value] if value else []
    if len(parts) > 1 or value.count(",") < 2:
        return parts
    short = enumerated(value)
    return short if all(part.count(" ") < 4 for part in short) else parts


def enumerated(value: str) -> list[str]:
    """The parts between commas; empty if a comma is within brackets."""
    parts = [part for part in _COMMA.split(value) if part]
    return parts if len(parts) > 2 and all(part.count("(") == part.count(")") for part in parts) else []
