"""Items: a material once its prompt is rendered, the answer that the ledger has for it, and what stands for its record.

An answer is judged by the output class of today: what a stricter validator refuses is none. What says the same as what
stands is confirmed; anything else is a row of history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.ledger.rows import GenerationRow
from db.readers.look_up import PromptHistory
from db.readers.what_stands import OwnOutcome, Standing
from db.sameness import what_it_says
from db.sources.values import Record
from presswork.answers.outcomes import Asking
from presswork.output_classes.validate import hash_of_stored, is_content
from presswork.prompts.render import Prompt


@dataclass(slots=True, eq=False)
class Item:
    """One generation to be: for which record, by which prompt, made from what.

    `own` is the outcome that the run has of it from before, which this one replaces; `standing` is what stands for its
    record. `asking` is how far it has come, once it is asked for, and `tries` counts the tries of a chunk that asked
    for it: each goes on where the one before ended.
    """

    generation_id: str
    record_key: str
    record: Record | None
    prompt: Prompt
    parents: tuple[str, ...] = ()
    own: OwnOutcome | None = None
    standing: Standing | None = None
    asking: Asking | None = None
    tries: int = 0

    @property
    def record_hash(self) -> str | None:
        """The hash of its record; None where it has none."""
        return self.record.hash if self.record else None

    @property
    def is_asked(self) -> bool:
        """Whether a request was made for it since it was rendered."""
        return self.asking is not None and self.asking.ordinal > 0

    def ask(self, max_output: int | None) -> Asking:
        """Say how far the asking for it is; what an earlier pass of the run has paid for it counts."""
        if self.asking is None:
            self.asking = Asking(self.prompt, paid=self.own.paid if self.own else 0, max_output=max_output)
        return self.asking


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
    # A NULL is the content of a class that takes JSON's null.
    text = history.output or "null"
    if not is_content(item.prompt.output_class, text):
        return None
    same_record = history.record_hash == item.record_hash
    return Hit(item, history.generation_id, history.output_hash or hash_of_stored(text), same_record)


def standing_answers(items: Sequence[Item]) -> dict[str, PromptHistory]:
    """Return, by prompt, the answers that stand for the items' own records: they need not be looked up."""
    return {
        standing.prompt_hash: standing.answer
        for item in items
        if (standing := item.standing) and standing.answer and standing.prompt_hash == item.prompt.hash
    }


def unchanged(hit: Hit) -> str | None:
    """Return the content that stands for a record where an answer says no more than that; None where it does.

    It has the same text, is made from the same record, template and parents, and no failure has come after it.
    """
    item, standing = hit.item, hit.item.standing
    if standing is None or standing.written_by != hit.source_id or standing.failing is not None or item.own is not None:
        return None
    of_same = (standing.record_hash, standing.template_hash) == (item.record_hash, item.prompt.brief.template.hash)
    return standing.generation_id if of_same and standing.parents == frozenset(item.parents) else None


def met_before(row: GenerationRow, standing: Standing | None) -> str | None:
    """Return the newest outcome of a record where it is the very failure that a row tells; None where it is another."""
    failing = standing.failing if standing else None
    return failing.generation_id if failing and what_it_says(failing) == what_it_says(row) else None
