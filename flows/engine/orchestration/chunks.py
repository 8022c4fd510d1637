"""Chunks: the Prefect task that carries one or many prompts from asking to being recorded.

A chunk is done when all of its prompts have an outcome in the ledger. Where the endpoint is away for longer than a
request's own retries last, the task fails as interrupted and Prefect tries it again later; it then asks only for
what has no outcome yet.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

from prefect import State, Task, task
from prefect.client.schemas.objects import TaskRun

from flows.engine.orchestration.results import PromptHashes
from flows.engine.plan import Hit, Item
from flows.engine.resources.stopping import Pursuit
from flows.errors import PassingCallError, StoppedError
from flows.steps.answers.outcomes import Outcome

LONGEST_DELAY_S = 300.0


class Recorder(Protocol):
    """What a chunk needs of its run."""

    async def pursue(self, item: Item) -> Outcome | None:
        """Ask until there is an outcome; None where its claim was lost: it is no longer this chunk's."""

    async def record(self, item: Item, outcome: Outcome) -> None:
        """Write an outcome; returns when it is committed."""

    async def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Look items up in the ledger."""


class InterruptedChunkError(PassingCallError):
    """The endpoint is away: the chunk goes on later with what it has not answered yet."""


class Chunk:
    """The prompts that one task run carries.

    A plain class, so that Prefect hands it on as it is: it walks through lists, dicts, dataclasses and models.
    """

    def __init__(self, recorder: Recorder, items: Sequence[Item], *, number: int, tries: int) -> None:
        self.recorder = recorder
        self.items = list(items)
        self.pending = list(items)
        self.number = number
        self.tries_left = tries
        self.hits: list[Hit] = []
        self.pursuit = Pursuit(busy=True, ends_by_itself=True)
        hashes = [item.prompt.hash for item in self.items]
        self.cache_key = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def __str__(self) -> str:
        step = self.items[0].prompt.brief.template.name
        return f"{step} {self.number}" + (f" ({len(self.items)} prompts)" if len(self.items) > 1 else "")

    async def find_hits(self) -> bool:
        """Look all prompts up; only if each has content is the chunk a hit, and `hits` says by what."""
        hits = await self.recorder.hits_of(self.items)
        self.hits = hits if len(hits) == len(self.items) else []
        return bool(self.hits)

    async def run(self) -> None:
        """Pursue what is pending, all at once; the run's gate says how many are in flight.

        Raises InterruptedChunkError where the endpoint is away and Prefect may try again, StoppingCallError where
        the run must stop.
        """
        self.tries_left -= 1
        self.pursuit.busy = True
        results = await asyncio.gather(*(self._one(item) for item in self.pending), return_exceptions=True)
        broken = [
            result
            for result in results
            if isinstance(result, BaseException) and not isinstance(result, InterruptedChunkError)
        ]
        if broken:
            # The cause rather than what it brought about: those who were stopped say only that.
            raise min(broken, key=lambda error: isinstance(error, StoppedError))
        interrupted = [result for result in results if isinstance(result, InterruptedChunkError)]
        if interrupted:
            self.pursuit.busy = self.tries_left <= 0
            kinds = ", ".join(sorted({error.kind for error in interrupted}))
            raise InterruptedChunkError(f"{len(interrupted)} of {len(self.items)} prompts: {kinds}", kind=kinds)

    async def _one(self, item: Item) -> None:
        outcome = await self.recorder.pursue(item)
        if outcome is None:
            self.pending.remove(item)
            return
        if outcome.passing and self.tries_left > 0:
            raise InterruptedChunkError(kind=outcome.error_kind or "call")
        await self.recorder.record(item, outcome)
        self.pending.remove(item)
        if outcome.passing:
            # Recorded as failed, and the task run says so too.
            raise InterruptedChunkError(kind=outcome.error_kind or "call")


def _may_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, InterruptedChunkError)


@task(
    name="generate",
    task_run_name="{chunk}",
    cache_policy=PromptHashes(),
    result_serializer="json",
    cache_result_in_memory=False,
    persist_result=True,
    retry_condition_fn=_may_retry,
)
async def complete_chunk(chunk: Chunk) -> int:
    """Carry a chunk to its end and return how many prompts it has."""
    await chunk.run()
    return len(chunk.items)


ChunkRunner = Callable[[Chunk], Awaitable[State[Any]]]


def chunk_runner(*, retries: int, delay_s: float, refresh: bool) -> ChunkRunner:
    """Bind the chunk task to a run: its retries over an outage, and whether it refreshes."""
    delays = [min(delay_s * 2**number, LONGEST_DELAY_S) for number in range(retries)]
    bound = complete_chunk.with_options(
        retries=retries,
        retry_delay_seconds=delays or 0,
        retry_jitter_factor=0.3,
        refresh_cache=refresh,
    )

    async def run(chunk: Chunk) -> State[Any]:
        # Prefect's overloads do not know that a state is awaited too.
        state: Any = bound(chunk, return_state=True)
        return cast("State[Any]", await state)

    return run
