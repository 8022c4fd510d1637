"""Plan: a page of rendered prompts is split into what the ledger answers, what must be asked and what is given up.

One query a page, before any Prefect task and before any limiter. A hit is judged by the output class of today: what
a stricter validator refuses is a miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from db.readers.history import BadOutcome, PromptHistory
from flows.steps.answers.asking import Asking
from flows.steps.answers.outcomes import is_wrong_model
from flows.steps.output_classes.validate import Content, validate_stored
from flows.steps.prompts.render import Prompt


@dataclass(slots=True, eq=False)
class Item:
    """One generation to be: for which record, by which prompt, made from what.

    `asking` is how far it has come, once it is asked for: each try of its chunk goes on from there.
    """

    generation_id: str
    record_key: str
    record_hash: str | None
    record_body: str | None
    prompt: Prompt
    parents: tuple[str, ...] = ()
    asking: Asking | None = None

    @property
    def attempts(self) -> int:
        """How many requests were made for it in this run."""
        return self.asking.ordinal if self.asking else 0


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that the ledger answers, with the generation that has the text; was it made from the same record?"""

    item: Item
    source_id: str
    output_hash: str
    same_record: bool = False


@dataclass
class Plan:
    """What is to be done with a page of items."""

    hits: list[Hit] = field(default_factory=list)
    misses: list[Item] = field(default_factory=list)
    given_up: list[tuple[Item, PromptHistory]] = field(default_factory=list)
    ended_badly: list[tuple[Item, BadOutcome]] = field(default_factory=list)


def plan_page(items: Sequence[Item], known: Mapping[str, PromptHistory], *, give_up_after: int) -> Plan:
    """Split a page by what is known of its prompts; `known` is empty where the run refreshes."""
    plan = Plan()
    for item in items:
        history = known.get(item.prompt.hash)
        hit = find_hit(item, history)
        if hit is not None:
            plan.hits.append(hit)
        elif history is not None and history.bad_outcomes >= give_up_after and not _is_worth_another(item, history):
            plan.given_up.append((item, history))
        else:
            plan.misses.append(item)
    return plan


def _is_worth_another(item: Item, history: PromptHistory) -> bool:
    # The template may name by now the model that answered instead.
    return history.wrong_model is not None and not is_wrong_model(item.prompt, history.wrong_model)


def take_over(plan: Plan, bad: Mapping[str, BadOutcome]) -> Plan:
    """Leave out of a plan what a shard of the run has asked for in vain, and keep how it ended."""
    if not bad:
        return plan
    lacking = [*plan.misses, *(item for item, _history in plan.given_up)]
    return Plan(
        hits=plan.hits,
        misses=[item for item in plan.misses if item.prompt.hash not in bad],
        given_up=[pair for pair in plan.given_up if pair[0].prompt.hash not in bad],
        ended_badly=[(item, bad[item.prompt.hash]) for item in lacking if item.prompt.hash in bad],
    )


def find_hit(item: Item, history: PromptHistory | None) -> Hit | None:
    """Return what answers an item, if it is content by today's output class."""
    if history is None or history.generation_id is None:
        return None
    judged = validate_stored(item.prompt.output_class, history.output)
    if not isinstance(judged, Content):
        return None
    same_record = history.record_hash == item.record_hash
    return Hit(item, history.generation_id, history.output_hash or judged.hash, same_record)
