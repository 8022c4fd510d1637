"""Send a step's misses as live requests, in chunks that the host runs.

Only a window of prompts is open at a time, so that memory does not grow with the number of records. The window is wide
enough that one slow answer never leaves the endpoint idle.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from db.words import SKIPPED
from presswork.answers.outcomes import Outcome
from presswork.answers.pursuing import answer_prompt
from presswork.engine.attempts import ItemJournal
from presswork.engine.claiming import Claiming
from presswork.engine.context import StepContext, StepTasks
from presswork.engine.generations import Recording
from presswork.engine.materials.items import Hit, Item
from presswork.engine.orchestration.chunks import Chunk
from presswork.engine.twins import Twins
from presswork.errors import CostCapError
from presswork.prompts.render import Brief

FEW = 100
"""If the first page has at most this many misses, each prompt gets its own task run, which the UI shows."""
MANY_SIZE = 100
"""Otherwise a task run has this many. Prefect takes some milliseconds of CPU for each, here and in its server."""
WINDOW = 3
"""Open prompts, as a multiple of the concurrency: each also needs time to be written before and after its request."""


class LiveChannel:
    """Requests the misses of one step; implements presswork.engine.orchestration.chunks.ChunkChannel."""

    def __init__(self, context: StepContext, brief: Brief, recording: Recording, tasks: StepTasks) -> None:
        self._context = context
        self._brief = brief
        self._recording = recording
        self._tasks = tasks
        self._twins = Twins(recording)
        self._claiming = Claiming(context, tasks, self._found, self._send_chunks)
        self._window = Window(WINDOW * context.settings.concurrency)
        self._chunk_size = context.settings.chunk_size
        self._chunks = 0
        self._knows_model = False
        self._max_output: int | None = None
        # Items that wait for room, in the order in which they will be sent.
        self._unsent: list[deque[Item]] = []

    async def send(self, misses: Sequence[Item]) -> None:
        """Send items in their order; returns when there was room for the last one."""
        if not misses:
            return
        if not self._knows_model:
            self._max_output = await self._context.endpoint.learn_model(self._brief)
            self._knows_model = True
        if self._chunk_size is None:
            self._chunk_size = 1 if len(misses) <= FEW else MANY_SIZE
        mine, others = await self._claiming.claim([item for item in misses if not self._twins.joins(item)])
        await self._send_chunks(mine)
        if others:
            await self._claiming.wait_for(others)

    def send_last(self) -> str | None:
        """Send the last of the items that wait for room, even without room, because the others depend on its result.

        Returns its prompt's hash, or None if no item waits.
        """
        for unsent in reversed(self._unsent):
            if unsent:
                item = unsent.pop()
                self._window.overdraw(1)
                self._start_chunk([item])
                return item.prompt.hash
        return None

    async def _send_chunks(self, items: Sequence[Item]) -> None:
        size = self._chunk_size or 1
        unsent = deque(items)
        self._unsent.append(unsent)
        while unsent:
            part = [unsent.popleft() for _ in range(min(size, len(unsent)))]
            if isinstance(self._context.pace.stopped, CostCapError):
                for item in part:
                    await self.record(item, _skipped(self._context.pace.stopped), wait=False)
                continue
            await self._window.take(len(part))
            if self._tasks.failure is not None:
                break
            self._start_chunk(part)
        self._unsent.remove(unsent)

    def _start_chunk(self, part: Sequence[Item]) -> None:
        self._chunks += 1
        chunk = Chunk(self, part, number=self._chunks, tries=self._context.settings.chunk_retries + 1)
        self._tasks.start(self._carry(chunk))

    async def _carry(self, chunk: Chunk) -> None:
        try:
            # This lets a stop end the host's wait for the next try. Requests in flight are ended one by one.
            with self._context.stopper.pursuing(chunk.pursuit):
                was_cached = await self._context.run_chunk(chunk)
            if was_cached:
                self._found(chunk.hits)
                await self._context.writer.committed()
        finally:
            chunk.drop(tuple(chunk.pending))

    async def pursue(self, item: Item) -> Outcome | None:
        """Request an item until it has an outcome; returns None if its claim was lost."""
        context = self._context
        try:
            with context.stopper.pursuing() as pursuit:
                journal = ItemJournal(context, item, pursuit)
                outcome = await answer_prompt(
                    item.ask(self._max_output),
                    ask=journal.ask,
                    gate=context.pace,
                    journal=journal,
                    policy=context.policy,
                )
        except CostCapError as error:
            return _skipped(error)
        if journal.claim_lost:
            self._claiming.lost(item)
            return None
        return outcome

    async def record(self, item: Item, outcome: Outcome, *, wait: bool = True) -> None:
        """Write an outcome for an item and its waiting duplicates; returns when they are committed."""
        self._recording.outcome(item, outcome)
        self._context.ledger.release(item.prompt.hash)
        self._twins.share(item, outcome)
        if wait:
            await self._context.writer.committed()
            outcome = self._recording.as_written(item, outcome)
            # A duplicate that was read during the commit could not find the answer yet, and has joined.
            while self._twins.share(item, outcome):
                await self._context.writer.committed()
        self._twins.end(item.prompt.hash)

    def _found(self, hits: Sequence[Hit]) -> None:
        """Record the ledger's answers for items and their waiting duplicates."""
        for hit in hits:
            self._context.ledger.release(hit.item.prompt.hash)
            self._twins.found(hit)

    async def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Look items up in the ledger."""
        return await self._claiming.hits_of(items)

    async def release(self, items: Sequence[Item]) -> None:
        """Release the claims of items until their chunk's next try."""
        await self._claiming.release(items)

    async def claim_again(self, items: Sequence[Item]) -> list[Item]:
        """Claim released items again, and return those that this run must request."""
        return await self._claiming.claim_again(items)

    def free(self, count: int) -> None:
        """Make room for other prompts."""
        self._window.give(count)


class Window:
    """Limits how many prompts are open at a time; one chunk always fits."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = asyncio.Event()

    async def take(self, count: int) -> None:
        """Wait until there is any room, then take it."""
        while self._free <= 0:
            self._changed.clear()
            await self._changed.wait()
        self._free -= count

    def overdraw(self, count: int) -> None:
        """Take room even if there is none; `take` then waits until that debt is paid back."""
        self._free -= count

    def give(self, count: int) -> None:
        """Return room."""
        self._free += count
        self._changed.set()


def _skipped(reason: CostCapError) -> Outcome:
    return Outcome(SKIPPED, None, reason.kind, str(reason))
