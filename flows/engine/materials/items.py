"""Items: a material once its prompt is rendered, and the answer that the ledger has for it."""

from __future__ import annotations

from dataclasses import dataclass

from flows.steps.answers.outcomes import Asking
from flows.steps.prompts.render import Prompt


@dataclass(slots=True, eq=False)
class Item:
    """One generation to be: for which record, by which prompt, made from what.

    `asking` is how far it has come, once it is asked for, and `tries` counts the tries of a chunk that asked for it:
    each goes on where the one before ended.
    """

    generation_id: str
    record_key: str
    record_hash: str | None
    record_body: str | None
    prompt: Prompt
    parents: tuple[str, ...] = ()
    asking: Asking | None = None
    tries: int = 0

    @property
    def attempts(self) -> int:
        """How many requests were made for it in this run."""
        return self.asking.ordinal if self.asking else 0


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that the ledger answers, and the generation that has the text; was it made from the same record?"""

    item: Item
    source_id: str
    output_hash: str
    same_record: bool = False
