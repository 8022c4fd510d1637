"""The Prefect task that carries a chunk: its cache key, and its retries over an outage of the endpoint."""

from __future__ import annotations

from typing import Any, cast

from prefect import State, Task, task
from prefect.client.schemas.objects import TaskRun

from flows.engine.orchestration.chunks import Chunk, ChunkRunner, InterruptedChunkError
from flows.engine.orchestration.results import PromptHashes

LONGEST_DELAY_S = 300.0


def _may_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, InterruptedChunkError) and state.data.goes_on


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


def chunk_runner(*, retries: int, delay_s: float, refresh: bool) -> ChunkRunner:
    """Bind the chunk task to a run: its retries over an outage, and whether it refreshes."""
    delays = [min(delay_s * 2**number, LONGEST_DELAY_S) for number in range(retries)]
    bound = complete_chunk.with_options(
        retries=retries,
        retry_delay_seconds=delays or 0,
        retry_jitter_factor=0.3,
        refresh_cache=refresh,
    )

    async def run(chunk: Chunk) -> bool:
        # Prefect's overloads do not know that a state is awaited too.
        ended: Any = bound(chunk, return_state=True)
        state = cast("State[Any]", await ended)
        if not state.is_completed():
            error = await state.aresult(raise_on_failure=False)
            if not isinstance(error, InterruptedChunkError):
                raise error
        return state.name == "Cached"

    return run
