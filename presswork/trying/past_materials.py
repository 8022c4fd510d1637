"""Define the handle of a step's materials as they were in an earlier run: records, and outputs of earlier steps.

They are made by the engine's own handles from the same rows of the ledger, so their prompts are those of that run.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Engine

from db.readers.past_runs.step_outcomes import PastRun
from db.readers.stored_generations import StepGeneration, generations_by_id
from db.sources.values import make_record
from presswork.engine.materials.handles import Generations, Material, Read, Source, material_of


@dataclass(frozen=True, eq=False)
class PastInputs:
    """The materials of a step as they were in the run `of`; pass it to `Run.generate` together with its `variants`.

    `keys` are those of the outcomes that the step will have; with them the same materials are found again. `note` says
    what about them is uncertain.
    """

    of: PastRun
    source: Source
    keys: tuple[str, ...]
    params: Mapping[str, Any]
    variants: int = 1
    note: str | None = None
    wanted: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """The variants of each material that are wanted, by its key."""

    @property
    def step(self) -> str | None:
        """The step whose generations these are; None for records."""
        return self.source.step

    async def count(self) -> int | None:
        """Return how many materials there are; None if not all of their variants may be wanted."""
        return None if self.wanted else await self.source.count()

    async def left_out(self) -> int:
        """Return 0: what got no content in an earlier step is not counted again."""
        return 0

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the materials with the inputs that a template reads."""
        async for page in self.source.pages(needs):
            yield [replace(material, variants=self.wanted.get(material.key)) for material in page]


@dataclass(frozen=True)
class PastGenerations(Generations):
    """Generations that are known by their ids, and not by the run and step that they belong to."""

    ids: tuple[str, ...] = ()

    async def count(self) -> int | None:
        """Return how many there are."""
        return len(self.ids)

    async def _stored(self) -> AsyncIterator[list[StepGeneration]]:
        yield await self.read(generations_by_id, self.ledger, self.ids)


@dataclass(frozen=True, eq=False)
class PastRecords:
    """The records of generations, as they are stored; `ids` maps the key of each record to such a generation."""

    ledger: Engine
    ids: Mapping[str, str]
    params: Mapping[str, Any]
    read: Read

    @property
    def step(self) -> None:
        """None: these are records."""

    async def count(self) -> int | None:
        """Return how many there are."""
        return len(self.ids)

    async def left_out(self) -> int:
        """Return 0: no step comes before the records."""
        return 0

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield all records in one page."""
        found = await self.read(generations_by_id, self.ledger, list(self.ids.values()))
        records = {each.id: each.record for each in found}
        stored = ((key, records.get(generation_id)) for key, generation_id in self.ids.items())
        yield [material_of(make_record(key, data)) for key, data in stored if data is not None]
