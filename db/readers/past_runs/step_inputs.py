"""Read what outcomes of an earlier run were made from: their parents, and which variant each is."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select

from db.session import among, rows_of
from db.tables import Generation, GenerationParent, StoredPrompt


@dataclass(frozen=True, slots=True)
class OutcomeInputs:
    """The parents of a generation, by id, and the variant that its prompt asked for; None without a prompt."""

    parents: tuple[str, ...]
    variant: int | None


def read_inputs(engine: Engine, generation_ids: Sequence[str]) -> dict[str, OutcomeInputs]:
    """Return the inputs of generations by their ids."""
    dialect = engine.dialect.name
    parents = defaultdict[str, list[str]](list)
    pairs = select(GenerationParent.generation_id, GenerationParent.parent_id)
    of_these = among(GenerationParent.generation_id, generation_ids, dialect)
    for child, parent in rows_of(engine, pairs.where(of_these).order_by(GenerationParent.parent_id)):
        parents[child].append(parent)
    variants = (
        select(Generation.id, StoredPrompt.variant)
        .outerjoin(StoredPrompt, StoredPrompt.hash == Generation.prompt_hash)
        .where(among(Generation.id, generation_ids, dialect))
    )
    return {each: OutcomeInputs(tuple(parents[each]), variant) for each, variant in rows_of(engine, variants)}
