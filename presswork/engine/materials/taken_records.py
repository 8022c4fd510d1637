"""Taken records: what a helper of a run works on, range by range, until no record of the divided select is free.

A range is finished when all of its outcomes are in the ledger. That is looked for when the next one is taken: nobody
waits for the slowest request of a range.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from presswork.engine.materials.handles import PAGE, Material, Selected, material_of

RANGES_EACH = 4
"""How many ranges a helper takes at least, so that a slow one leaves its last records to others."""


@dataclass(eq=False)
class TakenRecords:
    """The records of a select that a helper takes of its run, of `helpers` that share them.

    `take` takes the keys of so many; `finish` hears, for each key that is taken, which keys its outcomes have, and says
    which are done. `is_stopped` says whether no more can be asked for: what is not taken is left to others.
    """

    selected: Selected
    helpers: int
    variants: int
    take: Callable[[int], Awaitable[list[str]]]
    finish: Callable[[Mapping[str, Sequence[str]]], Awaitable[set[str]]]
    is_stopped: Callable[[], bool]
    _unfinished: dict[str, Sequence[str]] = field(default_factory=dict, init=False)

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the records of a range at a time.

        Keys that this helper's select does not give stay taken until it leaves: then they are the run's, and no range
        has them again.
        """
        spool = await self.selected.check()
        size = size_of_range(spool.count, self.helpers)
        while not self.is_stopped() and (keys := await self.take(size)):
            records = await self.selected.read(spool.records_of, keys)
            yield [material_of(record) for record in records]
            self._unfinished |= {record.key: self._outcomes_of(record.key) for record in records}
            await self.finish_done()

    async def finish_done(self) -> None:
        """Finish what has its outcome by now."""
        if self._unfinished:
            for key in await self.finish(self._unfinished):
                del self._unfinished[key]

    def _outcomes_of(self, key: str) -> list[str]:
        return [f"{key}/{variant}" for variant in range(self.variants)] if self.variants > 1 else [key]


def size_of_range(records: int, helpers: int) -> int:
    """How many records a helper takes at a time."""
    return max(1, min(PAGE, ceil(records / (helpers * RANGES_EACH))))
