"""Context: what a step works with, handed down by its run as plain values and small protocols.

Nothing below run.py knows the run: a step runs in a test with stand-ins for these, without Prefect and a database.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from db.ledger.rows import ConfirmedRow, GenerationRow, OpenedRow, PromptRow, RecordRow, SettledRow, TextRow
from db.readers.look_up import PromptHistory
from db.readers.what_stands import OwnOutcome, Standing
from presswork.answers.outcomes import Policy
from presswork.answers.pursuing import Gate
from presswork.claude.answers import Answer
from presswork.engine.materials.handles import Material
from presswork.engine.orchestration.chunks import ChunkRunner
from presswork.engine.resources.stopping import Stopper
from presswork.errors import LedgerAwayError, StoppedError, StoppingCallError
from presswork.pacing.breaker import Breaker
from presswork.prompts.render import Brief
from presswork.report.progress import Progress
from presswork.settings import Settings


class StepLedger(Protocol):
    """Which run it is, what the ledger knows of its prompts and records, and the run's claims."""

    run_id: str
    flow: str
    endpoint: str

    @property
    def lease_id(self) -> str:
        """Who works on the run here."""

    @property
    def helper_id(self) -> str | None:
        """The same where that is a helper, else None."""

    async def known(self, hashes: Iterable[str]) -> Mapping[str, PromptHistory]:
        """Return what is known; where the run refreshes, only what is new since it began."""

    async def standing(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, Standing]:
        """Return what stands for records, and the answers that it gives; `with_parents`, what it was made from too."""

    async def own_outcomes(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, OwnOutcome]:
        """Return what the run has of records already, where it has been at them before."""

    async def take(self, hashes: Sequence[str]) -> set[str]:
        """Claim prompts, and return those that are now this run's to ask for."""

    async def ready(self, prompt_hash: str) -> None:
        """Wait until a request may be sent; ClaimLostError where the prompt must be claimed again first."""

    def release(self, prompt_hash: str) -> None:
        """Give a claim back with the next commit."""


class RowWriter(Protocol):
    """Commits rows together; presswork.engine.resources.writer.Writer."""

    def has_prompt(self, prompt_hash: str) -> bool:
        """Whether a prompt is waiting for the next commit already."""

    def add_prompt(self, row: PromptRow, texts: Iterable[TextRow]) -> None:
        """Add a prompt with the texts that it shares with others."""

    def add_record(self, row: RecordRow) -> None:
        """Add a record."""

    def add_generation(self, row: GenerationRow, parents: Iterable[str]) -> None:
        """Add a generation, with the ids of those that it was made from."""

    def confirm(self, row: ConfirmedRow) -> None:
        """Add that what stands for a record still does."""

    def open_attempt(self, row: OpenedRow) -> None:
        """Add an attempt that is about to be sent."""

    def settle_attempt(self, row: SettledRow) -> None:
        """Add how an attempt ended."""

    async def committed(self) -> None:
        """Wait until all that was added is in the ledger."""

    def has_attempt(self, attempt_id: str) -> bool:
        """Whether the ledger has taken an attempt that was committed."""

    def failure_of(self, generation_id: str) -> str | None:
        """Say why a committed generation stands as failed, where the ledger refused its content."""


class RequestGate(Gate, Protocol):
    """The gate for the requests of one run; presswork.pacing.pace.Pace."""

    stopped: StoppingCallError | None
    """What has stopped the run, if anything has."""

    def breaker(self, step: str) -> Breaker:
        """Return what stops the run where the endpoint refuses a step's requests all alike."""

    def stop(self, reason: StoppingCallError) -> None:
        """Let no further request go."""


class AskedEndpoint(Protocol):
    """The run's endpoint; presswork.engine.resources.endpoint.RunEndpoint."""

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Send a request."""

    async def learn_model(self, brief: Brief) -> int | None:
        """Find out about a step's model before its first request, and return its longest answer in tokens."""


class Paged(Protocol):
    """What a step works on; each handle of presswork.engine.materials.handles."""

    def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield materials, a page at a time, with what the template reads."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """All that the steps of one run share."""

    settings: Settings
    policy: Policy
    ledger: StepLedger
    writer: RowWriter
    pace: RequestGate
    endpoint: AskedEndpoint
    run_chunk: ChunkRunner
    progress: Progress
    stopper: Stopper


class StepTasks:
    """The tasks of one step. Each goes on to its end; `failure` is the first that went wrong with one of them."""

    def __init__(self, stop: Callable[[StoppingCallError], None]) -> None:
        self._stop = stop
        self.running: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task; it raises nothing."""
        task = asyncio.create_task(self._guarded(work))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    async def join(self) -> None:
        """Wait until all have ended, those too that the last ones start."""
        while self.running:
            await asyncio.gather(*self.running)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException as error:  # noqa: BLE001 - kept, and raised when the other tasks have ended
            if self.failure is None and isinstance(error, LedgerAwayError):
                self._stop(StoppedError(str(error)))
            self.failure = self.failure or error
