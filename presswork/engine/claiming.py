"""Claim prompts, so that no two runs request the same one.

A run waits for the prompts that another run has claimed, and takes them over if that run fails. A chunk that waits for
the endpoint releases its claims until its next try.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from presswork.engine.context import StepContext, StepTasks
from presswork.engine.materials.items import Hit, Item, find_hits

MOST_WAITING = 2000
"""At most this many prompts may wait for other runs; then this run stops reading ahead."""
ASK_AGAIN_S = (0.2, 3.0)
"""Seconds between two looks for another run's answers: the first pause and the longest."""


@dataclass
class Claiming:
    """The claims of one step. `found` records the hits that the ledger has by now; `send` requests the rest."""

    context: StepContext
    tasks: StepTasks
    found: Callable[[Sequence[Hit]], None]
    send: Callable[[Sequence[Item]], Awaitable[None]]
    _waiting: int = 0
    _lost: list[Item] = field(default_factory=list)

    async def claim(self, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """Claim prompts; returns the items to request, and those that another run has claimed.

        Answers that arrived since the look-up are recorded.
        """
        if not items:
            return [], []
        owned = await self.context.ledger.take([item.prompt.hash for item in items])
        mine = [item for item in items if item.prompt.hash in owned]
        others = [item for item in items if item.prompt.hash not in owned]
        # Looked up again now that no other run can request them: an answer may have arrived meanwhile.
        return await self._unanswered(mine), others

    async def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Return the hits that the ledger has by now."""
        if not items:
            return []
        return find_hits(items, await self.context.ledger.known([item.prompt.hash for item in items]))

    async def wait_for(self, items: Sequence[Item]) -> None:
        """Wait in a task for the prompts of other runs; returns at once unless too many wait already."""
        while self._waiting >= MOST_WAITING and self.tasks.failure is None:
            await asyncio.wait(self.tasks.running, timeout=ASK_AGAIN_S[1], return_when=asyncio.FIRST_COMPLETED)
        self.tasks.start(self._await_others(items))

    async def release(self, items: Sequence[Item]) -> None:
        """Release the claims of items, so that other runs can request them."""
        for item in items:
            self.context.ledger.release(item.prompt.hash)
        await self.context.writer.committed()

    async def claim_again(self, items: Sequence[Item]) -> list[Item]:
        """Claim released items again and return those to request; a task waits for those of other runs."""
        mine, others = await self.claim(items)
        if others:
            self.tasks.start(self._await_others(others))
        return mine

    def lost(self, item: Item) -> None:
        """Look up and claim an item again, with all others whose claims were lost, or wait for their new owner."""
        self._lost.append(item)
        if len(self._lost) == 1:
            self.tasks.start(self._await_lost())

    async def _await_lost(self) -> None:
        await asyncio.sleep(ASK_AGAIN_S[0])
        lost, self._lost = self._lost, []
        await self._await_others(lost)

    async def _await_others(self, items: Sequence[Item]) -> None:
        """Wait for the prompts of other runs; request those that they release without an answer."""
        waiting, pause = list(items), ASK_AGAIN_S[0]
        self._waiting += len(waiting)
        try:
            with self.context.stopper.pursuing():
                while waiting and self.tasks.failure is None:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, ASK_AGAIN_S[1])
                    mine, left = await self.claim(await self._unanswered(waiting))
                    self._waiting += len(left) - len(waiting)
                    waiting = left
                    await self.send(mine)
        finally:
            self._waiting -= len(waiting)

    async def _unanswered(self, items: Sequence[Item]) -> list[Item]:
        """Record the hits that the ledger has by now, and return the other items."""
        hits = await self.hits_of(items)
        self.found(hits)
        answered = {hit.item.generation_id for hit in hits}
        return [item for item in items if item.generation_id not in answered]
