"""Plan: split a page of rendered prompts by what the ledger knows of them. Pure: it neither reads nor writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from db.readers.look_up import BadOutcome, PromptHistory
from flows.engine.materials.items import Hit, Item, find_hit
from flows.steps.answers.outcomes import is_wrong_model


@dataclass
class Plan:
    """What is to be done with a page of items."""

    hits: list[Hit] = field(default_factory=list)
    misses: list[Item] = field(default_factory=list)
    given_up: list[tuple[Item, PromptHistory]] = field(default_factory=list)
    ended_badly: list[tuple[Item, BadOutcome]] = field(default_factory=list)


def plan_page(
    items: Sequence[Item],
    known: Mapping[str, PromptHistory],
    bad: Mapping[str, BadOutcome],
    *,
    give_up_after: int,
) -> Plan:
    """Split a page by what is known of its prompts; `known` is empty where the run refreshes.

    `bad` says of which prompts a shard of the run has asked in vain, and how that ended.
    """
    plan = Plan()
    for item in items:
        history = known.get(item.prompt.hash)
        in_vain = bad.get(item.prompt.hash)
        hit = find_hit(item, history)
        if hit is not None:
            plan.hits.append(hit)
        elif in_vain is not None:
            plan.ended_badly.append((item, in_vain))
        elif history is not None and history.bad_outcomes >= give_up_after and not _is_worth_another(item, history):
            plan.given_up.append((item, history))
        else:
            plan.misses.append(item)
    return plan


def _is_worth_another(item: Item, history: PromptHistory) -> bool:
    # The template may name by now the model that answered instead.
    return history.wrong_model is not None and not is_wrong_model(item.prompt, history.wrong_model)
