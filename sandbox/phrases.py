"""Shape a phrase: into a sentence, a title without decoration, a shorter part, or a claim."""

import re

from sandbox import frames
from sandbox.record_fields import Fact

SENTENCE_ENDS = tuple(".!?\u2026\u3002\uff01\uff1f\u061f")
_VERBS = frozenset(
    "adds becomes belongs brings carries charges closes comes contains covers doubles fits folds gives goes grows has"
    " helps holds improves includes keeps lasts leaves lets looks makes measures needs offers opens pairs protects"
    " reads removes runs saves serves sits smells sounds stands starts stays stops suits takes tastes tells turns"
    " washes wears weighs works".split()
)
_JOINING = frozenset("in on from by for with over before after once at without into under of".split())
# A title that the sandbox made before is not decorated again.
_TITLED = tuple(
    frame.removeprefix("{S}")
    for frame in (*frames.HEADLINES, *frames.SEVERAL)
    if frame.startswith("{S}") and len(frame) > 3
)
FINAL_ENDS = (*SENTENCE_ENDS, *_TITLED)
"""The ends of a text that is not decorated."""
_JOINT = re.compile(r"[,;:]\s|\s(?:and|but|that|which|who|so|because|in|at|when|while|until)\s")
_MEASURED = re.compile(r", \d")


def as_sentence(text: str) -> str:
    """A sentence with a capital and a full stop."""
    text = capitalized(text)
    return text if text.endswith((*SENTENCE_ENDS, '"', "\u201d", ")", "'")) else f"{text.rstrip(',;:')}."


def undecorated(fact: Fact) -> Fact:
    """A section's subject without the sandbox's own decoration."""
    return Fact(plain_title(fact.phrase), fact.line)


def plain_title(title: str) -> str:
    """A title without the sandbox's own decoration."""
    end = next((end for end in _TITLED if title.endswith(end)), "")
    return title.removesuffix(end)


def head_of(phrase: str, most: int) -> str:
    """A phrase, or its longest part that fits and is complete; empty if that is a single word."""
    if len(phrase) <= most:
        return phrase
    ends = [match.start() for match in _JOINT.finditer(phrase, 0, most + 1) if match.start() <= most]
    return phrase[: ends[-1]] if ends and " " in phrase[: ends[-1]] else ""


def claim_of(phrase: str) -> str | None:
    """A fact that begins with a verb, as a sentence about "it"."""
    words = phrase.split(None, 2)
    if _MEASURED.search(phrase):
        return None
    if words[0] in _VERBS:
        return f"It {phrase}."
    if len(words) > 1 and words[0].endswith(("ed", "en", "de")) and words[1] in _JOINING:
        return f"It is {phrase}."
    return None


def capitalized(text: str) -> str:
    """A text whose first letter is a capital; the others stay."""
    return text[:1].upper() + text[1:]
