"""Define a handle of materials that were read before the run opened, such as the records of a trial."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from presswork.engine.materials.handles import PAGE, Material


@dataclass(frozen=True, eq=False)
class GivenMaterials:
    """Materials in memory, for a few records. `step` made them; None if they are records. `params` as in Selected."""

    materials: Sequence[Material]
    params: Mapping[str, Any] = field(default_factory=dict)
    step: str | None = None

    async def count(self) -> int:
        """Return how many materials there are."""
        return len(self.materials)

    async def left_out(self) -> int:
        """Return 0: no step comes before the materials that were chosen."""
        return 0

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the materials in their order."""
        for start in range(0, len(self.materials), PAGE):
            yield list(self.materials[start : start + PAGE])
