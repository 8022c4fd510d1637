"""Results: Prefect's cache of chunk tasks, keyed on the prompt hashes and served by the ledger.

Prefect looks a task's key up in a result storage. This storage keeps nothing, neither a result nor a list of chunks:
a read asks the ledger for each prompt of the chunk whose task run asks, and is a hit only if all are answered with
content; a write has nothing to do, for the answers are in the ledger before the task ends. So there is one cache, and
no file decides what is paid for again. The block holds no database URL, which Prefect would store with its password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from prefect.cache_policies import CachePolicy
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.filesystems import WritableFileSystem
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer

from flows.engine.orchestration.chunks import Chunk

BLOCK = "presswork-ledger"


class NotInLedgerError(LookupError):
    """A prompt of the chunk has no answer in the ledger: the task must run."""


@dataclass
class PromptHashes(CachePolicy):
    """A chunk's cache key: the prompt hash itself where it carries one, else the hash of all of them."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Return the key."""
        chunk: Chunk = inputs["chunk"]
        return chunk.cache_key


class LedgerResults(WritableFileSystem):
    """Reads of task results, served from the ledger."""

    _block_type_name: ClassVar[str] = "Presswork ledger"
    _block_type_slug: ClassVar[str] = BLOCK
    _description: ClassVar[str] = "Lets Prefect's cache read the ledger of the process that runs the flow."

    async def read_path(self, path: str) -> bytes:
        """Return a result record if every prompt of the chunk is answered; raise NotInLedgerError if not."""
        chunk = _asking_chunk()
        # The key alone says nothing of prompts: only the chunk that asks knows which ones it stands for.
        if chunk is None or chunk.cache_key != path or not await chunk.find_hits():
            raise NotInLedgerError(path)
        metadata = ResultRecordMetadata(
            storage_key=path, serializer=JSONSerializer(), storage_block_id=self._block_document_id
        )
        return ResultRecord(metadata=metadata, result=len(chunk.items)).serialize()

    async def write_path(self, path: str, content: bytes) -> None:
        """Do nothing: what the task answered is in the ledger already."""


def _asking_chunk() -> Chunk | None:
    """The chunk of the task run that reads its result, which is in progress in this very context."""
    context = TaskRunContext.get()
    chunk = context.parameters.get("chunk") if context is not None else None
    return chunk if isinstance(chunk, Chunk) else None


async def saved_block() -> LedgerResults:
    """Return the block as Prefect's server knows it, saving it where it is missing."""
    for tries_left in (2, 1, 0):
        block = LedgerResults()
        try:
            await block.save(BLOCK, overwrite=True)
        except (ObjectAlreadyExists, PrefectHTTPStatusError):
            # Two runs that begin at once on a new server make its type, its schema and the block under each other's
            # hands, and the second is refused once for each.
            if not tries_left:
                raise
        else:
            return block
    raise AssertionError("the last refusal is raised")


@contextmanager
def results_served_by(block: LedgerResults) -> Iterator[None]:
    """Have the tasks of the running flow keep their results with the block.

    Named on each task instead, Prefect would open two API clients a task run to look it up: 12 ms of CPU.
    """
    context = FlowRunContext.get()
    assert context is not None
    store = context.result_store.model_copy(update={"result_storage": block})
    with context.model_copy(update={"result_store": store}):
        yield
