"""Claiming: no two runs ask for the same prompt. What another run asks for is waited for, and taken over if it fails.

Claims are for those who ask: a prompt whose chunk waits for the endpoint to be back is given back until the next try.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from presswork.engine.context import StepContext, StepTasks
from presswork.engine.materials.items import Hit, Item, find_hits

MOST_WAITING = 2000
"""Prompts that another run is asking for, at most, before this one stops reading ahead."""
ASK_AGAIN_S = (0.2, 3.0)
"""How often the ledger is asked for another run's answers: at first, and at the longest."""


@dataclass
class Claiming:
    """The claims of one step. `found` records what the ledger answers by now, `send` takes what this run is to ask."""

    context: StepContext
    tasks: StepTasks
    found: Callable[[Sequence[Hit]], None]
    send: Callable[[Sequence[Item]], Awaitable[None]]
    _waiting: int = 0
    _lost: list[Item] = field(default_factory=list)

    async def claim(self, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """Claim prompts and return the items to ask for, and those that another run is asking for.

        What was answered since the look-up is recorded.
        """
        if not items:
            return [], []
        owned = await self.context.ledger.take([item.prompt.hash for item in items])
        mine = [item for item in items if item.prompt.hash in owned]
        others = [item for item in items if item.prompt.hash not in owned]
        # Looked up once more now that no one else can be asking: the answer may have come in between.
        return await self._unanswered(mine), others

    async def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Return what the ledger answers by now."""
        if not items:
            return []
        return find_hits(items, await self.context.ledger.known([item.prompt.hash for item in items]))

    async def wait_for(self, items: Sequence[Item]) -> None:
        """Wait for what other runs ask for, in a task; returns at once unless too many wait already."""
        while self._waiting >= MOST_WAITING and self.tasks.failure is None:
            await asyncio.wait(self.tasks.running, timeout=ASK_AGAIN_S[1], return_when=asyncio.FIRST_COMPLETED)
        self.tasks.start(self._await_others(items))

    async def give_back(self, items: Sequence[Item]) -> None:
        """Let other runs ask for items that this one can't ask for just now."""
        for item in items:
            self.context.ledger.release(item.prompt.hash)
        await self.context.writer.committed()

    async def claim_again(self, items: Sequence[Item]) -> list[Item]:
        """Return which of the items given back are still to be asked for; other runs' are waited for."""
        mine, others = await self.claim(items)
        if others:
            self.tasks.start(self._await_others(others))
        return mine

    def lost(self, item: Item) -> None:
        """Look an item up and claim it again, with all others whose claims were lost, or wait for who has it now."""
        self._lost.append(item)
        if len(self._lost) == 1:
            self.tasks.start(self._await_lost())

    async def _await_lost(self) -> None:
        await asyncio.sleep(ASK_AGAIN_S[0])
        lost, self._lost = self._lost, []
        await self._await_others(lost)

    async def _await_others(self, items: Sequence[Item]) -> None:
        """Wait for what other runs are asking; take over what they give up."""
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
        """Record what the ledger answers by now, and return the rest."""
        hits = await self.hits_of(items)
        self.found(hits)
        answered = {hit.item.generation_id for hit in hits}
        return [item for item in items if item.generation_id not in answered]
