"""Take records for a helper, range by range, until no record of the divided select is free.

A range is finished when all of its outcomes are in the ledger. This is checked when the next range is taken, so that a
helper never waits for the slowest request of a range.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from presswork.engine.materials.handles import PAGE, Material, Selected, material_of

RANGES_EACH = 4
"""Each helper gets at least this many ranges, so that a slow helper leaves its last records to others."""


@dataclass(eq=False)
class TakenRecords:
    """The records that one of `helpers` helpers takes from the run's select.

    `take` takes at most N keys. `finish` gets the outcome keys of each taken key, and returns the keys that are done.
    If `is_stopped`, no more records are taken, and others can take them.
    """

    selected: Selected
    helpers: int
    variants: int
    take: Callable[[int], Awaitable[list[str]]]
    finish: Callable[[Mapping[str, Sequence[str]]], Awaitable[set[str]]]
    is_stopped: Callable[[], bool]
    _unfinished: dict[str, Sequence[str]] = field(default_factory=dict, init=False)

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the records of one range at a time.

        Keys that are missing from this helper's select stay taken until the helper leaves. Then the run handles them,
        and no range contains them again.
        """
        spool = await self.selected.check()
        size = size_of_range(spool.count, self.helpers)
        while not self.is_stopped() and (keys := await self.take(size)):
            records = await self.selected.read(spool.records_of, keys)
            yield [material_of(record) for record in records]
            self._unfinished |= {record.key: self._outcomes_of(record.key) for record in records}
            await self.finish_done()

    async def finish_done(self) -> None:
        """Finish the records that have their outcomes by now."""
        if self._unfinished:
            for key in await self.finish(self._unfinished):
                del self._unfinished[key]

    def _outcomes_of(self, key: str) -> list[str]:
        return [f"{key}/{variant}" for variant in range(self.variants)] if self.variants > 1 else [key]


def size_of_range(records: int, helpers: int) -> int:
    """Return how many records a helper takes at a time."""
    return max(1, min(PAGE, ceil(records / (helpers * RANGES_EACH))))
