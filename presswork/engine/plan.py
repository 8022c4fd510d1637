"""Plan: split a page of rendered prompts by what the ledger knows of them. Pure: it neither reads nor writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from db.readers.look_up import PromptHistory
from db.readers.what_stands import OwnOutcome
from db.words import BAD_OUTCOMES, GIVEN_UP, SUCCEEDED
from presswork.answers.outcomes import is_wrong_model
from presswork.engine.materials.handles import Material
from presswork.engine.materials.items import Hit, Item, find_hit


@dataclass
class Plan:
    """What is to be done with a page of items; `left` are those whose outcome in this run stays as it is."""

    hits: list[Hit] = field(default_factory=list)
    misses: list[Item] = field(default_factory=list)
    given_up: list[tuple[Item, PromptHistory]] = field(default_factory=list)
    left: list[OwnOutcome] = field(default_factory=list)


def is_done(own: OwnOutcome, material: Material, template_hash: str, *, most_paid: int) -> bool:
    """Whether a run is done with a material: it has content, or is not asked for again in this run.

    Not where what it is made from has changed since, or the template: as when a run that failed goes on after the cause
    was fixed. A helper has read the record itself, perhaps later. `most_paid` is how many requests a run pays for.
    """
    record_hash = own.record_hash if own.by_helper or material.record is None else material.record.hash
    if (own.template_hash, own.record_hash, own.parents) != (template_hash, record_hash, frozenset(material.parents)):
        return False
    return own.status in {SUCCEEDED, *BAD_OUTCOMES} or own.error_kind == GIVEN_UP or own.paid >= most_paid


def plan_page(items: Sequence[Item], known: Mapping[str, PromptHistory], *, give_up_after: int) -> Plan:
    """Split a page by what is known of its prompts; `known` is empty where the run refreshes."""
    plan = Plan()
    for item in items:
        history = known.get(item.prompt.hash)
        hit = find_hit(item, history)
        if hit is not None:
            plan.hits.append(hit)
        elif history is None or history.bad_outcomes < give_up_after or _is_worth_another(item, history):
            plan.misses.append(item)
        elif item.own is not None:
            # It is one of the bad outcomes that are too many, and says more than that.
            plan.left.append(item.own)
        else:
            plan.given_up.append((item, history))
    return plan


def _is_worth_another(item: Item, history: PromptHistory) -> bool:
    # The template may name by now the model that answered instead.
    return history.wrong_model is not None and not is_wrong_model(item.prompt, history.wrong_model)
