"""Define the host of a run, which executes it, runs its chunks and shows its progress.

Flows run on Prefect, except in tests, which set another `HOST`. Trials run on the host of try_host.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Engine

from db.clock import new_id, now
from db.identity import this_process
from db.ledger.rows import RunRow
from db.machine import Machine, here
from db.readers.runs import read_run
from db.session import readable_url
from db.words import MODE_LIVE, RUNNING, TRY
from presswork.engine.materials.handles import Selected
from presswork.engine.orchestration.chunks import ChunkRunner
from presswork.engine.resources.endpoint import Endpoint
from presswork.engine.resources.run_ledger import RunLedger
from presswork.engine.resources.stopping import Stopper
from presswork.errors import ConfigurationError, TrialError
from presswork.options import Helper, RunOptions
from presswork.prompts.flow_source import FlowSource
from presswork.report.progress import Log, Progress
from presswork.report.summary import Summary
from presswork.settings import Settings

_OPEN_NOW: WeakKeyDictionary[Machine, set[tuple[str, str]]] = WeakKeyDictionary()
"""The open runs of each process, by flow run and name."""


@dataclass(frozen=True)
class RunOrigin:
    """What started a run: the flow, the deployment's name, the Prefect flow run, and the code.

    `source` has the templates that the flow's code names. Without Prefect there is no flow run.
    """

    flow: str
    deployment: str | None
    flow_run_id: str | None
    trigger: str
    parameters: dict[str, Any]
    code_version: str
    source: FlowSource

    def resumes(self, ledger: Engine, given: str | None) -> str | None:
        """Return the id of the run that a new run resumes.

        Raises ConfigurationError if it is not in the ledger, belongs to another flow, or is a shard. Raises TrialError
        if it is a trial and the new run is none.
        """
        if given is None:
            return None
        row = read_run(ledger, given)
        if row is None:
            raise ConfigurationError(
                f"The run {given!r} can't be resumed: the ledger {readable_url(ledger.url)} has no run with this id. "
                "List the runs with `presswork history`."
            )
        if row["flow"] != self.flow:
            raise ConfigurationError(
                f"The run {given} can't be resumed here: it belongs to the flow {row['flow']!r}, not {self.flow!r}."
            )
        if row["parent_run_id"] is not None:
            raise ConfigurationError(f"The run {given} is a shard. Resume the run {row['parent_run_id']} instead.")
        if row["trigger"] == TRY != self.trigger:
            raise TrialError
        return given

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let a flow run have only one open run of a name, because a second one would take over the same run.

        Raises ConfigurationError if the flow run already has one in this process.
        """
        if self.flow_run_id is None:
            yield
            return
        name, open_now = (self.flow_run_id, self.flow), _OPEN_NOW.setdefault(here(), set())
        if name in open_now:
            raise ConfigurationError(
                f"The flow {self.flow!r} opens two runs at once. Give each run its own name: open_run(flow=...)."
            )
        open_now.add(name)
        try:
            yield
        finally:
            open_now.discard(name)

    def row(self, ledger: Engine, endpoint: str, given: str | None) -> RunRow:
        """Make the row of a new run, which resumes the given run if there is one; raises as `resumes` does."""
        return RunRow(
            id=new_id(),
            resumes_run_id=self.resumes(ledger, given),
            flow=self.flow,
            deployment=self.deployment,
            prefect_flow_run_id=self.flow_run_id,
            trigger=self.trigger,
            parameters=self.parameters,
            code_version=self.code_version,
            endpoint=endpoint,
            mode=MODE_LIVE,
            started_at=now(),
            status=RUNNING,
            process=this_process(),
            alive_until=now(),
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays open from one run to the next: the endpoint, and the ledger for its name."""

    endpoint: Endpoint
    ledger: Engine


@dataclass(frozen=True)
class SpreadRun:
    """What `spread` needs to know about the run that it splits into shards."""

    settings: Settings
    options: RunOptions
    ledger: RunLedger
    stopper: Stopper
    selected: Selected
    records: int


class Host(Protocol):
    """Executes one run."""

    log: Log
    """The run's log."""
    leaves_upkeep: bool
    """Whether the run neither sweeps spools nor indexes words, which other runs do, because a person waits for it."""
    also_shown: str
    """Where people find the summary besides the ledger, to be appended to a line of the log; may be empty."""

    async def origin(self, flow: str | None, settings: Settings) -> RunOrigin:
        """Find out what started the run; `flow` overrides the name of the flow."""

    def running_chunks(self, settings: Settings, *, refresh: bool) -> AbstractAsyncContextManager[ChunkRunner]:
        """Run chunks while the context is open, with the retries of the settings; a refresh uses no cache."""

    def shown(self, progress: Progress, helper: Helper | None) -> AbstractAsyncContextManager[None]:
        """Show the run's progress while the context is open, and which helper it is."""

    def watching(self, stopper: Stopper) -> AbstractAsyncContextManager[None]:
        """Stop the run if the host cancels it while the context is open."""

    async def spread(self, run: SpreadRun) -> None:
        """Let helpers do a run's first step, and return when they have ended."""

    async def publish(self, summary: Summary, ledger: URL, read_from: Mapping[str, URL], audit_url: str | None) -> None:
        """Report that the run has ended, or that it is suspended; `audit_url` is where the audit room shows it."""

    @property
    def can_end_process(self) -> bool:
        """Whether the run can end its process and be started again; if not, it can only wait in its process."""

    async def suspended(self, why: str, due: datetime) -> BaseException:
        """Schedule the run to start again when it is due, and return the error that its flow must raise."""

    async def stopped(self, why: str, *, cancelled: bool) -> BaseException:
        """Report that the run was stopped, and return the error that its flow must raise.

        Unless `cancelled`, another process decides the flow run's state.
        """

    async def nothing_to_do(self, why: str) -> BaseException:
        """Report that there is nothing to do, which is not a failure, and return the error that the flow must raise."""


HOST: ContextVar[Host | None] = ContextVar("presswork_host", default=None)
"""The host of the runs that flows open in this context; None is Prefect."""
