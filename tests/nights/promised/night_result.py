"""What a night leaves for its control: the ledger, what the endpoint served, and what the driver did to whom and when.

The driver fills it, promises.py reads it. Times are the world's true seconds. Nothing in it comes from the product but
ids, exit statuses and summaries. What the driver does not know may keep its default; then less is checked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.nights.served.exchanges import Exchange

Interval = tuple[float, float]
"""From when until when; the end is `math.inf` if it lasted until the end of the night."""


@dataclass(frozen=True, slots=True)
class ProcessStory:
    """What happened to one simulated process.

    `frozen` is when it was not stepped although it lived. `partitioned` is when it could not commit: its ledger was
    unavailable, full, or slower than usual; also when all processes had that. `held_up` is when the thread that commits
    and renews the lease did not go on.
    """

    name: str
    died_at: float | None = None
    frozen: Sequence[Interval] = ()
    partitioned: Sequence[Interval] = ()
    held_up: Sequence[Interval] = ()


@dataclass(frozen=True, slots=True)
class RunStory:
    """The work of one process on one run: one call of `open_hosted_run`.

    A flow retry, a resumption and a helper each have a story of their own, with the same `run_id` if it is one run.
    """

    process: str
    run_id: str | None = None
    """None if it did not get as far as a row."""
    lease_id: str | None = None
    """The process's lease (RunLedger.lease_id)."""
    worker: str = "main"
    began_at: float = 0.0
    """Before `open_hosted_run` was called."""
    ended_at: float | None = None
    """When it was left, by an error too; None if the process was killed in it."""
    exit_status: int | None = None
    """As the command would return it; None if it was killed, cancelled, suspended or failed."""
    error: str | None = None
    """The error with which it ended."""
    refresh: bool = False
    max_cost: Decimal | None = None
    max_paid_requests: int = 8
    concurrency: int = 50
    give_up_after: int = 3
    chunk_retries: int = 5
    records: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By step, the records that it read: by key, their canonical JSON as in `records.body`."""
    summary: Mapping[str, Any] | None = None
    """The product's summary of the run at its end (Summary.for_programs), if it made one."""
    summed_up_at: float | None = None
    """When the process made this summary, before it closed the run."""
    must_finish: bool = False
    """It was made after all faults were over, without a cap, and nothing stopped it: it must complete."""


@dataclass(frozen=True, slots=True)
class NightResult:
    """A night that is over: no process runs any more."""

    ledger: Path
    """The SQLite file."""
    exchanges: Sequence[Exchange]
    processes: Sequence[ProcessStory]
    runs: Sequence[RunStory]
    """In the order in which they began."""
    committed_at: Mapping[str, float]
    """By the id of an attempt or generation: when its row first became visible to others."""
    settled_at: Mapping[str, float] = field(default_factory=dict)
    """By the id of an attempt: when its end was last committed; a process that returns corrects what others wrote."""
    crashed_at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By run: when its row was set to `crashed`."""
    completed_at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By run: when its row was set to `completed`."""
    steps_done_at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By run: when one of its steps was set to done, at its end or at the close. Figures are read after an end."""
    taken_at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By lease: when a process took it, which superseded the one that had its place."""
    main_taken_at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By run: when a process took its main lease, also one that got no further."""
    let_go_at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By lease: when it was deleted, by its own process or by another."""
    logged: Sequence[str] = ()
    """What the product logged, line by line; other lines do no harm."""
    errors: Sequence[str] = ()
    """The errors that no code handled: of main tasks, and of loops."""
    secrets: Sequence[str] = ()
    """The texts that may be written nowhere."""
    refused_ids: frozenset[str] = frozenset()
    """The rows of which the ledger refused a value."""
    unkept_at: Mapping[str, float] = field(default_factory=dict)
    """By the id of a request: when neither the ledger nor a disk took its answer."""
    fails_before_all: tuple[str, ...] = ()
    """The names of the errors of a run that has no templates, or has not read its records."""
    output_classes: Mapping[str, Any] = field(default_factory=dict)
    """By step: the pydantic class of a valid answer."""
    marks: Mapping[str, Callable[[Mapping[str, Any]], str]] = field(default_factory=dict)
    """By step: the text that a record's prompt must contain, from the record."""
    indexed: bool = False
    """The ledger has an index of words."""
    spill_folders: Sequence[Path] = ()
    cut_spills: frozenset[Path] = frozenset()
    """The spill files in whose write a process was killed."""
    swept_folders: Sequence[Path] = ()
    """The folders of records in which a last run began after all that was kept there had expired."""
    left_suspended: frozenset[str] = frozenset()
    """The runs that are suspended at the end, because nobody resumed them."""
    is_over: bool = True
    """After all faults, a last run of each flow was made, which recovers from all that crashed: nothing may be open."""
    lease_s: float = 120.0
    heartbeat_s: float = 15.0
    commit_interval_s: float = 0.05
    request_timeout_s: float = 600.0
    slack_s: float = 0.25
    """How long a commit or a step of a process may take beyond its interval without a fault."""
