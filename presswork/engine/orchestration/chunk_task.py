"""The Prefect task that carries a chunk: its retries over an outage, and its cache, which is the ledger.

Prefect looks a task's key, made of prompt hashes, up in a result storage. This storage keeps nothing, neither a result
nor a list of chunks: a read asks the ledger for each prompt of the chunk whose task run asks, and is a hit only if all
are answered with content; a write has nothing to do, for the answers are in the ledger before the task ends. So there
is one cache, and no file decides what is paid for again. The block holds no database URL, which Prefect would store
with its password.
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
    """A prompt of the chunk has no answer in the ledger: the task must run."""


def _cache_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    chunk: Chunk = parameters["chunk"]
    return chunk.cache_key


class LedgerResults(WritableFileSystem):
    """Reads of task results, served from the ledger."""

    _block_type_name: ClassVar[str] = "Presswork ledger"
    _block_type_slug: ClassVar[str] = LEDGER_BLOCK
    _description: ClassVar[str] = "Lets Prefect's cache read the ledger of the process that runs the flow."

    async def read_path(self, path: str) -> bytes:
        """Return a result record if every prompt of the chunk is answered; raise NotInLedgerError if not."""
        # That of the task run that reads its result, which is in progress in this very context.
        context = TaskRunContext.get()
        chunk = context.parameters.get("chunk") if context is not None else None
        # The key alone says nothing of prompts: only the chunk that asks knows which ones it stands for.
        if not isinstance(chunk, Chunk) or chunk.cache_key != path or not await chunk.find_hits():
            raise NotInLedgerError(path)
        metadata = ResultRecordMetadata(
            storage_key=path, serializer=JSONSerializer(), storage_block_id=self._block_document_id
        )
        return ResultRecord(metadata=metadata, result=len(chunk.items)).serialize()

    async def write_path(self, path: str, content: bytes) -> None:
        """Do nothing: what the task answered is in the ledger already."""


# Two runs that begin at once on a new server make the block's type, its schema and the block under each other's hands,
# and the second is refused once for each.
@stamina.retry(on=(ObjectAlreadyExists, PrefectHTTPStatusError), attempts=3, wait_initial=0, wait_max=0, wait_jitter=0)
async def saved_block() -> LedgerResults:
    """Return the block as Prefect's server knows it, saving it where it is missing."""
    block = LedgerResults()
    await block.save(LEDGER_BLOCK, overwrite=True)
    return block


def _may_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, InterruptedChunkError) and state.data.goes_on


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
    """Carry a chunk to its end and return how many prompts it has."""
    await chunk.run()
    return len(chunk.items)


@asynccontextmanager
async def running_chunks(settings: Settings, *, refresh: bool) -> AsyncIterator[ChunkRunner]:
    """Run chunks as tasks of the running flow while the context is open; the ledger serves their results.

    Retries over an outage are those of the settings; a refresh uses no cache.
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
    # Named on each task instead, Prefect would open two API clients a task run to look the block up: 12 ms of CPU.
    store = context.result_store.model_copy(update={"result_storage": await saved_block()})

    async def run(chunk: Chunk) -> bool:
        # Prefect's overloads do not know that a state is awaited too.
        state: State[Any] = await cast("Any", bound(chunk, return_state=True))
        if not state.is_completed():
            error = await state.aresult(raise_on_failure=False)
            if not isinstance(error, InterruptedChunkError):
                raise error
        return state.name == "Cached"

    with context.model_copy(update={"result_store": store}):
        yield run
