"""Split a page of rendered prompts by what the ledger knows about them, without reading or writing anything."""

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
    """What to do with the items of a page; `left` holds the outcomes of this run that stay as they are."""

    hits: list[Hit] = field(default_factory=list)
    misses: list[Item] = field(default_factory=list)
    skipped: list[tuple[Item, PromptHistory]] = field(default_factory=list)
    left: list[OwnOutcome] = field(default_factory=list)


def is_done(own: OwnOutcome, material: Material, template_hash: str, *, most_paid: int) -> bool:
    """Return whether a run is done with a material: it has content, or this run may not request it again.

    It is not done if its record, its parents or the template has changed since, as when a failed run resumes after a
    fix. The record of a helper's outcome is not compared: the helper read it itself, perhaps later. `most_paid` is how
    many requests a run pays for.
    """
    record_hash = own.record_hash if own.by_helper or material.record is None else material.record.hash
    if (own.template_hash, own.record_hash, own.parents) != (template_hash, record_hash, frozenset(material.parents)):
        return False
    return own.status in {SUCCEEDED, *BAD_OUTCOMES} or own.error_kind == GIVEN_UP or own.paid >= most_paid


def plan_page(items: Sequence[Item], known: Mapping[str, PromptHistory], *, give_up_after: int) -> Plan:
    """Split a page by the history of its prompts; a refresh passes only what is new since it began."""
    plan = Plan()
    for item in items:
        history = known.get(item.prompt.hash)
        hit = find_hit(item, history)
        if hit is not None:
            plan.hits.append(hit)
        elif history is None or history.bad_outcomes < give_up_after or _is_worth_another(item, history):
            plan.misses.append(item)
        elif item.own is not None:
            # This run's own bad outcome is one of the counted ones, and explains more than "skipped" would.
            plan.left.append(item.own)
        else:
            plan.skipped.append((item, history))
    return plan


def _is_worth_another(item: Item, history: PromptHistory) -> bool:
    # The template may now name the model that answered instead of the requested one.
    return history.wrong_model is not None and not is_wrong_model(item.prompt, history.wrong_model)
