"""Run a chunk as a Prefect task, which is retried over an outage and cached by the ledger.

Prefect looks up a task's key, made of prompt hashes, in a result storage. This storage keeps no results and no list of
chunks. A read looks up each prompt of the task run's chunk in the ledger, and is a hit only if all have content. A
write does nothing, because the answers are in the ledger before the task ends. So there is one cache, and no file
decides what is paid for again. The block holds no database URL, because Prefect would store its password.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, cast

import stamina
from prefect import State, Task, task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.filesystems import WritableFileSystem
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer

from presswork.engine.orchestration.chunks import Chunk, ChunkRunner, InterruptedChunkError
from presswork.settings import Settings

LEDGER_BLOCK = "presswork-ledger"
LONGEST_DELAY_S = 300.0


class NotInLedgerError(LookupError):
    """A prompt of the chunk has no answer in the ledger, so the task must run."""


def _cache_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    chunk: Chunk = parameters["chunk"]
    return chunk.cache_key


class LedgerResults(WritableFileSystem):
    """A storage of task results that reads from the ledger."""

    _block_type_name: ClassVar[str] = "Presswork ledger"
    _block_type_slug: ClassVar[str] = LEDGER_BLOCK
    _description: ClassVar[str] = "Lets Prefect's cache read the ledger of the process that runs the flow."

    async def read_path(self, path: str) -> bytes:
        """Return a result record if every prompt of the chunk is answered; else raise NotInLedgerError."""
        # The task run that reads its result is active in this context.
        context = TaskRunContext.get()
        chunk = context.parameters.get("chunk") if context is not None else None
        # The key is only a hash; the task run's chunk has the prompts.
        if not isinstance(chunk, Chunk) or chunk.cache_key != path or not await chunk.find_hits():
            raise NotInLedgerError(path)
        metadata = ResultRecordMetadata(
            storage_key=path, serializer=JSONSerializer(), storage_block_id=self._block_document_id
        )
        return ResultRecord(metadata=metadata, result=len(chunk.items)).serialize()

    async def write_path(self, path: str, content: bytes) -> None:
        """Do nothing: the answers of the task are already in the ledger."""


# If two runs begin at once on a new server, both create the block's type, its schema and the block. The server refuses
# the slower one once for each of the three.
@stamina.retry(on=(ObjectAlreadyExists, PrefectHTTPStatusError), attempts=3, wait_initial=0, wait_max=0, wait_jitter=0)
async def saved_block() -> LedgerResults:
    """Return the block as Prefect's server has it; saves it if it is missing."""
    block = LedgerResults()
    await block.save(LEDGER_BLOCK, overwrite=True)
    return block


def _may_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, InterruptedChunkError) and state.data.will_continue


@task(
    name="generate",
    task_run_name="{chunk}",
    cache_policy=CachePolicy.from_cache_key_fn(_cache_key),
    result_serializer="json",
    cache_result_in_memory=False,
    persist_result=True,
    retry_condition_fn=_may_retry,
)
async def complete_chunk(chunk: Chunk) -> int:
    """Run a chunk to its end and return how many prompts it has."""
    await chunk.run()
    return len(chunk.items)


@asynccontextmanager
async def running_chunks(settings: Settings, *, refresh: bool) -> AsyncIterator[ChunkRunner]:
    """Run chunks as tasks of the running flow while the context is open; their results come from the ledger.

    The settings limit the retries over an outage. A refresh uses no cache.
    """
    retries, delay_s = settings.chunk_retries, settings.chunk_retry_delay_s
    delays = [min(delay_s * 2**number, LONGEST_DELAY_S) for number in range(retries)]
    bound = complete_chunk.with_options(
        retries=retries,
        retry_delay_seconds=delays or 0,
        retry_jitter_factor=0.3,
        refresh_cache=refresh,
    )
    context = FlowRunContext.get()
    assert context is not None
    # If each task named the block, Prefect would open two API clients per task run to look it up: 12 ms of CPU.
    store = context.result_store.model_copy(update={"result_storage": await saved_block()})

    async def run(chunk: Chunk) -> bool:
        # Prefect's overloads do not say that `return_state` needs an await too.
        state: State[Any] = await cast("Any", bound(chunk, return_state=True))
        if not state.is_completed():
            error = await state.aresult(raise_on_failure=False)
            if not isinstance(error, InterruptedChunkError):
                raise error
        return state.name == "Cached"

    with context.model_copy(update={"result_store": store}):
        yield run
