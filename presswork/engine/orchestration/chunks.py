"""Chunks: one or many prompts that are carried together from asking to being recorded.

A chunk is done when all of its prompts have an outcome in the ledger. Where the endpoint is away for longer than a
request's own retries last, it breaks off as interrupted and its host (Prefect) tries it again later. Until then others
may ask for what is left of it; the next try asks for what still has no outcome.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from db.words import CALL_ERROR
from presswork.answers.outcomes import Outcome
from presswork.engine.materials.items import Hit, Item
from presswork.engine.resources.stopping import Pursuit
from presswork.errors import PassingCallError, StoppedError


class ChunkChannel(Protocol):
    """What a chunk needs of the step that it belongs to."""

    async def pursue(self, item: Item) -> Outcome | None:
        """Ask until there is an outcome; None where its claim was lost: it is no longer this chunk's."""

    async def record(self, item: Item, outcome: Outcome) -> None:
        """Write an outcome; returns when it is committed."""

    async def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Look items up in the ledger."""

    async def give_back(self, items: Sequence[Item]) -> None:
        """Let other runs ask for items until the chunk's next try."""

    async def claim_again(self, items: Sequence[Item]) -> list[Item]:
        """Return which of the items given back are still this chunk's to ask for."""

    def free(self, count: int) -> None:
        """Make room for other prompts."""


class InterruptedChunkError(PassingCallError):
    """The endpoint is away: the chunk goes on later with what it has not answered yet, if it `goes_on`."""

    goes_on = True


class Chunk:
    """The prompts that one task run carries; `tries` is how often each may be tried, in this chunk or another.

    A plain class, so that Prefect hands it on as it is: it walks through lists, dicts, dataclasses and models.
    """

    def __init__(self, channel: ChunkChannel, items: Sequence[Item], *, number: int, tries: int) -> None:
        self._channel = channel
        self._tries = tries
        self._number = number
        self._interrupted = False
        self.items = list(items)
        self.pending = list(items)
        self.hits: list[Hit] = []
        self.pursuit = Pursuit(busy=True, ends_by_itself=True)
        hashes = [item.prompt.hash for item in self.items]
        self.cache_key = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def __str__(self) -> str:
        step = self.items[0].prompt.brief.template.name
        return f"{step} {self._number}" + (f" ({len(self.items)} prompts)" if len(self.items) > 1 else "")

    async def find_hits(self) -> bool:
        """Look all prompts up. Only if each has content is the chunk a hit; `hits` says what answers the pending."""
        hits = await self._channel.hits_of(self.items)
        pending = {id(item) for item in self.pending}
        is_hit = len(hits) == len(self.items)
        self.hits = [hit for hit in hits if is_hit and id(hit.item) in pending]
        return is_hit

    async def run(self) -> None:
        """Pursue what is pending, all at once; the run's gate says how many are in flight.

        Raises InterruptedChunkError where the endpoint is away, StoppingCallError where the run must stop.
        """
        self.pursuit.busy = True
        if self._interrupted:
            mine = await self._channel.claim_again(self.pending)
            self.drop([item for item in self.pending if item not in mine])
        results = await asyncio.gather(*(self._one(item) for item in self.pending), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        interrupted = [error for error in errors if isinstance(error, InterruptedChunkError)]
        if len(interrupted) < len(errors):
            # The cause rather than what it brought about: those who were stopped say only that.
            raise min(
                errors, key=lambda error: (isinstance(error, InterruptedChunkError), isinstance(error, StoppedError))
            )
        if interrupted:
            kinds = ", ".join(sorted({error.kind for error in interrupted}))
            told = f"{len(interrupted)} of {len(self.items)} prompts: {kinds}"
            interruption = InterruptedChunkError(told, kind=kinds)
            self._interrupted = interruption.goes_on = bool(self.pending)
            if self.pending:
                await self._channel.give_back(self.pending)
                self.pursuit.busy = False
            raise interruption

    async def _one(self, item: Item) -> None:
        outcome = await self._channel.pursue(item)
        if outcome is None:
            self.drop([item])
            return
        item.tries += 1
        if not outcome.passing or item.tries >= self._tries:
            await self._channel.record(item, outcome)
            self.drop([item])
        if outcome.passing:
            # Where it is recorded as failed, the task run says so too.
            raise InterruptedChunkError(kind=outcome.error_kind or CALL_ERROR)

    def drop(self, items: Iterable[Item]) -> None:
        """Take off the chunk what needs no more of it."""
        for item in items:
            self.pending.remove(item)
            self._channel.free(1)


ChunkRunner = Callable[[Chunk], Awaitable[bool]]
"""Runs a chunk to its end, with the retries of its host; whether the host's cache had all of its answers.

Raises what stops the run. A chunk that is interrupted at last has recorded its prompts as failed.
"""
