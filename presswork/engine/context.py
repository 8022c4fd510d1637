"""Define what a run passes to its steps: plain values and small protocols.

No module below run.py uses the run. A test can give a step stand-ins for these, without Prefect or a database.
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
    """Identifies the run, looks up its prompts and records, and claims prompts."""

    run_id: str
    flow: str
    endpoint: str

    @property
    def lease_id(self) -> str:
        """The id of this process's lease on the run."""

    @property
    def helper_id(self) -> str | None:
        """The lease's id if this process is a helper, else None."""

    async def known(self, hashes: Iterable[str]) -> Mapping[str, PromptHistory]:
        """Return the histories of prompts; for a refresh, only what is new since it began."""

    async def standing(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, Standing]:
        """Return the current content of records with its answers and, if `with_parents`, its parents."""

    async def own_outcomes(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, OwnOutcome]:
        """Return the outcomes that earlier passes of the run have for records."""

    async def take(self, hashes: Sequence[str]) -> set[str]:
        """Claim prompts, and return those that this run now holds."""

    async def ready(self, prompt_hash: str) -> None:
        """Wait until a request may be sent; raises ClaimLostError if the prompt must be claimed again first."""

    def release(self, prompt_hash: str) -> None:
        """Release a claim with the next commit."""


class RowWriter(Protocol):
    """Commits rows together; presswork.engine.resources.writer.Writer."""

    def has_prompt(self, prompt_hash: str) -> bool:
        """Return whether the next commit already has a prompt."""

    def add_prompt(self, row: PromptRow, texts: Iterable[TextRow]) -> None:
        """Add a prompt and the texts that it shares with others."""

    def add_record(self, row: RecordRow) -> None:
        """Add a record."""

    def add_generation(self, row: GenerationRow, parents: Iterable[str]) -> None:
        """Add a generation and the ids of its parents."""

    def confirm(self, row: ConfirmedRow) -> None:
        """Add that the outcome of a record is still the current one."""

    def open_attempt(self, row: OpenedRow) -> None:
        """Add an attempt before its request is sent."""

    def settle_attempt(self, row: SettledRow) -> None:
        """Add how an attempt ended."""

    async def committed(self) -> None:
        """Wait until all added rows are in the ledger."""

    def has_attempt(self, attempt_id: str) -> bool:
        """Return whether the ledger accepted a committed attempt."""

    def failure_of(self, generation_id: str) -> str | None:
        """Return why the ledger refused the content of a committed generation; None if it did not."""


class RequestGate(Gate, Protocol):
    """The gate for the requests of one run; presswork.pacing.pace.Pace."""

    stopped: StoppingCallError | None
    """The error that stopped the run, if one did."""

    def breaker(self, step: str) -> Breaker:
        """Return the breaker of a step: it stops the run if the endpoint refuses all of the step's requests."""

    def stop(self, reason: StoppingCallError) -> None:
        """Admit no further request."""


class AskedEndpoint(Protocol):
    """The run's endpoint; presswork.engine.resources.endpoint.RunEndpoint."""

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Send a request."""

    async def learn_model(self, brief: Brief) -> int | None:
        """Read about a step's model before its first request; returns its longest answer in tokens."""


class Paged(Protocol):
    """The materials that a step works on; every handle of presswork.engine.materials.handles has them."""

    def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield pages of materials with the inputs that the template reads."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """Everything that the steps of one run share."""

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
    """The tasks of one step. Each one runs to its end; `failure` is the first error of any of them."""

    def __init__(self, stop: Callable[[StoppingCallError], None]) -> None:
        self._stop = stop
        # In the order of their starts, in which they are cancelled too.
        self.running: dict[asyncio.Task[None], None] = {}
        self.failure: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, which raises nothing."""
        task = asyncio.create_task(self._guarded(work))
        self.running[task] = None
        task.add_done_callback(self.running.pop)
        return task

    async def join(self) -> None:
        """Wait until all tasks have ended, including those that they start."""
        while self.running:
            await asyncio.gather(*self.running)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException as error:  # noqa: BLE001 - kept, and raised when the other tasks have ended
            if self.failure is None and isinstance(error, LedgerAwayError):
                self._stop(StoppedError(str(error)))
            self.failure = self.failure or error
