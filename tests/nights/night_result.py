"""What a night leaves for its control: the ledger, what the endpoint served, and what the driver did to whom and when.

The driver fills it (night.py), promises.py reads it. Times are the world's true seconds. Nothing in it comes from the
product but ids, exit statuses and summaries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

Interval = tuple[float, float]
"""From when until when; the end is `math.inf` for what lasted until the end of the night."""


class ServedUsage(Protocol):
    """The tokens that the endpoint bills; `input_tokens` are without the three of the prompt cache."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cache_creation_5m_tokens(self) -> int: ...
    @property
    def cache_creation_1h_tokens(self) -> int: ...
    @property
    def cache_read_tokens(self) -> int: ...


class ServedExchange(Protocol):
    """What promises.py reads of an exchange (tests/nights/endpoint.py), in the order of arrival.

    `at` is the time at which the process sent it, `ended_at` when the process had the answer or the error. `prompt` is
    the same for all requests that are made for one prompt, repairs and escalations too (see promises.prompt_key).
    """

    number: int
    at: float
    process: str
    prompt: str | None
    request_id: str | None
    status: int | None
    fault: str
    usage: Any
    cost_usd: Decimal
    good: bool
    text: str | None
    ended_at: float | None
    delivered: bool


@dataclass(frozen=True, slots=True)
class ProcessStory:
    """What happened to one simulated process."""

    name: str
    died_at: float | None = None
    """When it was killed; None if it ended by itself or still lives."""
    frozen: Sequence[Interval] = ()
    """When it was not stepped, although it lived: a freeze, or the machine slept."""
    partitioned: Sequence[Interval] = ()
    """When it could not reach the ledger: unavailable, full, or slower than a commit takes."""


@dataclass(frozen=True, slots=True)
class RunStory:
    """One process's work on one run: `open_hosted_run` called once. A retry, a resume and a helper have their own."""

    process: str
    run_id: str | None
    """None if it did not get as far as a row."""
    worker: str = "main"
    refresh: bool = False
    max_cost: Decimal | None = None
    max_paid_requests: int = 8
    concurrency: int = 50
    give_up_after: int = 3
    chunk_retries: int = 5
    records: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By step, the text of each record that it read, by key: as in `records.body` (canonical JSON)."""
    began_at: float = 0.0
    ended_at: float | None = None
    """When `open_hosted_run` was left, by an error too; None if the process was killed in it."""
    exit_status: int | None = None
    """As the command would return it; None if it was killed, cancelled or suspended."""
    error: str | None = None
    """The class of the error with which it ended."""
    summary: Mapping[str, Any] | None = None
    """The product's own summary of the run (Summary.for_programs), read when it ended."""
    superseded_at: float | None = None
    """When this process first knew that another one continues the run (HeldLease.superseded_by)."""
    must_finish: bool = False
    """It was made after all faults were over, alone, without a cap: it must complete with exit status 0."""


@dataclass(frozen=True, slots=True)
class NightResult:
    """A night that is over: no process runs any more, the ledger is closed."""

    ledger: Path
    """The SQLite file."""
    endpoint: str
    exchanges: Sequence[ServedExchange]
    processes: Sequence[ProcessStory]
    runs: Sequence[RunStory]
    committed_at: Mapping[str, float]
    """By the id of an attempt or generation: when its row became visible to other connections, first."""
    settled_at: Mapping[str, float] = field(default_factory=dict)
    """By the id of an attempt: when its end was committed, last."""
    output_classes: Mapping[str, Any] = field(default_factory=dict)
    """By step: the pydantic class of a valid answer."""
    spill_folders: Sequence[Path] = ()
    lease_s: float = 120.0
    commit_interval_s: float = 0.05
    patience_s: float = 300.0
    request_timeout_s: float = 600.0
    all_is_over: bool = True
    """All faults were over before the last run, which every crashed or suspended run had before it: nothing may be
    left open."""
    seed: int = 0
