"""Say what a run needs to know of its helpers' flow runs, and what it asks of the server that starts them.

Plain values, so that spread.py decides on helpers without Prefect; prefect_helpers.py starts them there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from db import words
from presswork.options import RunOptions

SUBMITTING = "Submitting"
"""The name of the pending state in which a worker starts a helper."""


class HelperStateType(StrEnum):
    """The types of states that a helper's flow run can have: those of Prefect."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    RUNNING = words.RUNNING
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = words.COMPLETED
    FAILED = words.FAILED
    CRASHED = words.CRASHED
    CANCELLED = words.CANCELLED


_FINAL = frozenset(
    {HelperStateType.COMPLETED, HelperStateType.FAILED, HelperStateType.CRASHED, HelperStateType.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class HelperState:
    """The state of a helper's flow run: its type, and its name as people see it.

    `since_s` tells two equal states from each other: Unix time by the server's clock, which may differ from ours.
    """

    type: HelperStateType
    name: str
    since_s: float

    @property
    def is_pending(self) -> bool:
        """Whether a worker has taken the flow run, and it does not run yet."""
        return self.type is HelperStateType.PENDING

    @property
    def is_running(self) -> bool:
        """Whether the flow run is running, as far as the server knows."""
        return self.type is HelperStateType.RUNNING

    @property
    def is_completed(self) -> bool:
        """Whether the flow run has ended without an error."""
        return self.type is HelperStateType.COMPLETED

    @property
    def is_final(self) -> bool:
        """Whether the flow run has ended."""
        return self.type in _FINAL


class HelpersUnavailableError(Exception):
    """The server that knows the helpers does not answer, or rejects a request. It may pass."""


class NoHelpersDeploymentError(Exception):
    """The deployment from which helpers are started was deleted: none can be started any more."""


class HelperRuns(Protocol):
    """The flow runs of one run's helpers. Each method raises HelpersUnavailableError if the server is unavailable."""

    async def start(self, options: RunOptions, attempt: int) -> tuple[str, HelperState]:
        """Start a helper, and return the id and state of its flow run.

        `options.helper` says which one. If this attempt of it was started before, return that flow run, so that a
        process that resumes the run after a crash finds what an earlier one started. Raises NoHelpersDeploymentError.
        """

    async def states(self, flow_runs: Sequence[str]) -> Mapping[str, HelperState]:
        """Return the states of these flow runs by id, without those that no longer exist."""

    async def report_crashed(self, flow_run: str) -> None:
        """Set a flow run to crashed whose process has ended without a final state."""

    async def cancel(self, flow_run: str, why: str) -> None:
        """Cancel a flow run."""
