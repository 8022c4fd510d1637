"""Lay a stored request out for reading: system, examples and user apart, and what came from data marked.

The template, the record and the outputs of earlier steps come from the ledger; nothing is read from a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import orjson
from sqlalchemy import Engine

from db.readers.stored_generations import Audit, StepGeneration, outputs_leading_to
from presswork.prompts.rendering.marking import (
    PARAMS_NAME,
    RECORD_NAME,
    MarkedPrompt,
    PromptPiece,
    StoredSource,
    mark_prompt,
    read_stored,
)

TOO_MANY = "It was made from more generations than are read again here, so what came from them is not marked."

TOO_LONG = "It is too long to be rendered again here, so what came from the record is not marked."
LONGEST_MARKED = 1_000_000
"""Characters of a prompt that is rendered again."""
MOST_SHOWN, MOST_PIECES = 100_000, 5_000
"""Characters and pieces of the user's part on a page; a browser can't show a book as one block."""


@dataclass(frozen=True, slots=True)
class Said:
    """A text of a request and who says it: `system`, `user` or `assistant`. `note` has more about it."""

    role: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class SentPrompt:
    """A request as it was sent. `settings` are its other values by name, `schema` is that of the answer."""

    settings: Mapping[str, str]
    system: Sequence[Said]
    examples: Sequence[Said]
    user: MarkedPrompt
    schema: str

    @property
    def length(self) -> int:
        """The number of characters of the user's part."""
        return sum(len(piece.text) for piece in self.user.pieces)

    @property
    def shown(self) -> Sequence[PromptPiece]:
        """The pieces of the user's part that a page has room for."""
        ends = accumulate(len(piece.text) for piece in self.user.pieces)
        pieces = zip(self.user.pieces[:MOST_PIECES], ends, strict=False)
        # The last one may be cut in the middle.
        cut = (replace(piece, text=piece.text[: max(len(piece.text) - (end - MOST_SHOWN), 0)]) for piece, end in pieces)
        return [piece for piece in cut if piece.text]

    @property
    def is_cut(self) -> bool:
        """Whether a page does not show the whole user's part."""
        return sum(len(piece.text) for piece in self.shown) < self.length


def sent_prompt(engine: Engine, audit: Audit) -> SentPrompt | None:
    """Lay out the request of a generation; None if it has none, because nothing was rendered."""
    request = audit.request
    if not isinstance(request, dict):
        return None
    *examples, last = [_said(message) for message in request.get("messages", [])] or [Said("user", "")]
    output = dict(request.get("output_config", {}))
    schema = output.pop("format", {}).get("schema")
    rest = {name: value for name, value in request.items() if name not in ("system", "messages", "output_config")}
    return SentPrompt(
        settings={name: as_text(value) for name, value in (rest | output).items()},
        system=[_part(part) for part in request.get("system", [])],
        examples=examples,
        user=_marked(engine, audit, last.text),
        schema="" if schema is None else as_text(schema),
    )


def as_text(value: Any) -> str:
    """Write a value for people: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()


def _said(message: Mapping[str, Any]) -> Said:
    return Said(str(message.get("role", "")), as_text(message.get("content", "")))


def _part(part: Mapping[str, Any]) -> Said:
    cache = part.get("cache_control")
    return Said("system", as_text(part.get("text", part)), f"cached for {cache.get('ttl', '5m')}" if cache else "")


def _marked(engine: Engine, audit: Audit, sent: str) -> MarkedPrompt:
    if audit.more_parents:
        return MarkedPrompt((PromptPiece(sent),), TOO_MANY)
    if len(sent) > LONGEST_MARKED:
        return MarkedPrompt((PromptPiece(sent),), TOO_LONG)
    stored = None if audit.template is None else read_stored(audit.template["name"], audit.template["sources"])
    if stored is None:
        return mark_prompt(None, [], {}, sent)
    inputs = _inputs(engine, audit, stored)
    return mark_prompt(stored, inputs, _given(audit.run.get("parameters") or {}), sent)


def _inputs(engine: Engine, audit: Audit, stored: StoredSource) -> list[dict[str, Any]]:
    """Return what the prompt may have been made from: the ledger does not say whether one parent was a list of one."""
    record = {} if audit.record is None else {RECORD_NAME: orjson.loads(audit.record)}
    parents = audit.parents
    if not parents:
        return [record]
    leading = outputs_leading_to(engine, parents, stored.reads)
    together = _together(parents, leading)
    return [{**record, **leading[parents[0].id]}, together] if len(parents) == 1 else [together]


def _together(parents: Sequence[StepGeneration], leading: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in leading.values():
        found |= each
    return {**found, parents[0].step: [parent.output for parent in parents]}


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a run was started with by name; they stand one level down, as `selection` or `params`."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in flat.items() if name not in (RECORD_NAME, PARAMS_NAME)}
