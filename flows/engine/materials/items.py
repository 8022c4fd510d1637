"""Items: a material once its prompt is rendered, and the answer that the ledger has for it.

An answer is judged by the output class of today: what a stricter validator refuses is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.readers.look_up import PromptHistory
from flows.steps.answers.outcomes import Asking
from flows.steps.output_classes.validate import Content, validate_stored
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


def find_hits(items: Sequence[Item], known: Mapping[str, PromptHistory]) -> list[Hit]:
    """Return what of the items the ledger answers."""
    found = (find_hit(item, known.get(item.prompt.hash)) for item in items)
    return [hit for hit in found if hit is not None]


def find_hit(item: Item, history: PromptHistory | None) -> Hit | None:
    """Return what answers an item, if it is content by today's output class."""
    if history is None or history.generation_id is None:
        return None
    judged = validate_stored(item.prompt.output_class, history.output)
    if not isinstance(judged, Content):
        return None
    same_record = history.record_hash == item.record_hash
    return Hit(item, history.generation_id, history.output_hash or judged.hash, same_record)
