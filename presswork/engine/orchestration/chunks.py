"""Process prompts in chunks, from their requests to their recorded outcomes.

A chunk is done when all of its prompts have an outcome in the ledger. If the endpoint is unavailable for longer than
the retries of a request, the chunk ends as interrupted and its host (Prefect) retries it later. Until then other runs
may request its open prompts; the next try requests those that still have no outcome.
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
    """What a chunk needs from its step."""

    async def pursue(self, item: Item) -> Outcome | None:
        """Request an item until it has an outcome; returns None if its claim was lost."""

    async def record(self, item: Item, outcome: Outcome) -> None:
        """Write an outcome; returns when it is committed."""

    async def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Look items up in the ledger, and return the hits."""

    async def release(self, items: Sequence[Item]) -> None:
        """Release the claims of items until the chunk's next try."""

    async def claim_again(self, items: Sequence[Item]) -> list[Item]:
        """Claim released items again, and return those that this chunk must request."""

    def free(self, count: int) -> None:
        """Make room for other prompts."""


class InterruptedChunkError(PassingCallError):
    """The endpoint is unavailable. If `will_continue`, a later try continues with the chunk's unanswered prompts."""

    will_continue = True


class Chunk:
    """The prompts of one task run; `tries` limits the tries of each prompt, in this chunk and in others.

    A plain class, so that Prefect passes it on unchanged; it looks into lists, dicts, dataclasses and models.
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
        """Look up all prompts, and return whether each has content; `hits` then has the hits of pending items."""
        hits = await self._channel.hits_of(self.items)
        pending = {id(item) for item in self.pending}
        is_hit = len(hits) == len(self.items)
        self.hits = [hit for hit in hits if is_hit and id(hit.item) in pending]
        return is_hit

    async def run(self) -> None:
        """Pursue all pending items at once; the run's gate limits the requests in flight.

        Raises InterruptedChunkError if the endpoint is unavailable, StoppingCallError if the run must stop.
        """
        self.pursuit.busy = True
        if self._interrupted:
            mine = await self._channel.claim_again(self.pending)
            self.drop([item for item in self.pending if item not in mine])
        results = await asyncio.gather(*(self._one(item) for item in self.pending), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        interrupted = [error for error in errors if isinstance(error, InterruptedChunkError)]
        if len(interrupted) < len(errors):
            # Prefer the error that caused the stop: a StoppedError is only its effect.
            raise min(
                errors, key=lambda error: (isinstance(error, InterruptedChunkError), isinstance(error, StoppedError))
            )
        if interrupted:
            kinds = ", ".join(sorted({error.kind for error in interrupted}))
            told = f"{len(interrupted)} of {len(self.items)} prompts: {kinds}"
            interruption = InterruptedChunkError(told, kind=kinds)
            self._interrupted = interruption.will_continue = bool(self.pending)
            if self.pending:
                await self._channel.release(self.pending)
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
            # Also after the last try: then the task run fails, as its prompt does.
            raise InterruptedChunkError(kind=outcome.error_kind or CALL_ERROR)

    def drop(self, items: Iterable[Item]) -> None:
        """Remove items that are done from the chunk."""
        for item in items:
            self.pending.remove(item)
            self._channel.free(1)


ChunkRunner = Callable[[Chunk], Awaitable[bool]]
"""Runs a chunk to its end, with its host's retries; returns whether the host's cache had all of its answers.

Raises the error that stops the run. A chunk that is still interrupted at its last try has recorded its prompts as
failed.
"""
