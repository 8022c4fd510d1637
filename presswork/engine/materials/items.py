"""Compare a rendered prompt with the ledger: its answer there, and the current content of its record.

An answer must be valid by today's output class: if a stricter validator refuses it, it is not a hit. An outcome that
equals the current one only confirms it; any other becomes a row of history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.ledger.rows import GenerationRow
from db.readers.look_up import PromptHistory
from db.readers.what_stands import OwnOutcome, Standing
from db.sameness import compared_fields
from db.sources.values import Record
from presswork.answers.outcomes import Asking
from presswork.output_classes.validate import hash_of_stored, is_content
from presswork.prompts.render import Prompt


@dataclass(slots=True, eq=False)
class Item:
    """A generation to make: its record, its prompt and its parents.

    `own` is the run's earlier outcome, which this one replaces; `standing` is the record's current content. `asking` is
    the state of its requests. `tries` counts the chunk's tries that requested it; each one continues where the last one
    ended.
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
        """The hash of its record; None without a record."""
        return self.record.hash if self.record else None

    @property
    def is_asked(self) -> bool:
        """Whether a request was made for it after it was rendered."""
        return self.asking is not None and self.asking.ordinal > 0

    def ask(self, max_output: int | None) -> Asking:
        """Return the state of its requests, which includes those that an earlier pass of the run paid for."""
        if self.asking is None:
            self.asking = Asking(self.prompt, paid=self.own.paid if self.own else 0, max_output=max_output)
        return self.asking


@dataclass(frozen=True, slots=True)
class Hit:
    """An item whose answer is in the ledger, and the generation that has the answer's text.

    With `same_record`, that generation was made from the same record.
    """

    item: Item
    source_id: str
    output_hash: str
    same_record: bool = False


def find_hits(items: Sequence[Item], known: Mapping[str, PromptHistory]) -> list[Hit]:
    """Return a hit for each item whose answer is in the ledger and still valid."""
    found = (find_hit(item, known.get(item.prompt.hash)) for item in items)
    return [hit for hit in found if hit is not None]


def find_hit(item: Item, history: PromptHistory | None) -> Hit | None:
    """Return the hit for an item, if its stored answer is valid by today's output class."""
    if history is None or history.generation_id is None:
        return None
    # NULL is the content of a class that accepts JSON's null.
    text = history.output or "null"
    if not is_content(item.prompt.output_class, text):
        return None
    same_record = history.record_hash == item.record_hash
    return Hit(item, history.generation_id, history.output_hash or hash_of_stored(text), same_record)


def standing_answers(items: Sequence[Item]) -> dict[str, PromptHistory]:
    """Return, by prompt, the current answers of the items' own records: they need no look-up."""
    return {
        standing.prompt_hash: standing.answer
        for item in items
        if (standing := item.standing) and standing.answer and standing.prompt_hash == item.prompt.hash
    }


def unchanged(hit: Hit) -> str | None:
    """Return the id of a record's current content if a hit changes nothing about it, else None.

    Unchanged content has the same text, record, template and parents, and no failure has followed it.
    """
    item, standing = hit.item, hit.item.standing
    if standing is None or standing.written_by != hit.source_id or standing.failing is not None or item.own is not None:
        return None
    of_same = (standing.record_hash, standing.template_hash) == (item.record_hash, item.prompt.brief.template.hash)
    return standing.generation_id if of_same and standing.parents == frozenset(item.parents) else None


def same_failure(row: GenerationRow, standing: Standing | None) -> str | None:
    """Return the id of a record's newest outcome if it is the same failure as a row's, else None."""
    failing = standing.failing if standing else None
    return failing.generation_id if failing and compared_fields(failing) == compared_fields(row) else None
