"""The plan of a night: who starts which runs, and everything that goes wrong. drawn/ draws it from a seed.

A plan is plain data, so that a shrinker can leave parts of it out while a night still fails.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from tests.nights.served.endpoint_faults import EndpointFault

MORNING_S = 40_000.0
"""All that goes wrong begins before; then the last runs are made."""
JOBS = ("note", "titled", "reviewed")
"""A job of one step, one of two steps, and one that is suspended between them."""


@dataclass(frozen=True, slots=True)
class Start:
    """Someone starts a job at a time. `again`: the flow run of an earlier start is started again after a crash.

    `resumes`: the newest run of the job that is not completed is resumed. Who reads `host` is the number of a machine.
    """

    at: float
    job: str = "note"
    host: int = 0
    again: bool = False
    resumes: bool = False
    refresh: bool = False
    trial: bool = False
    retries: int = 0
    deployed: bool = False
    shards: int | None = None
    max_cost: float | None = None
    limit: int | None = None
    concurrency: int = 4
    chunk_size: int = 3


AT_A_TIME = frozenset(
    "sleep reboot jump interrupt cancel edit compact unavailable locked full slow partition no_server no_deployment "
    "source_unavailable source_lost source_fails null_key repeated_key unstorable_key odd_value bad_template "
    "spill_full spill_unwritable disks_full spool_full pause terminate".split()
)
"""The kinds of events that happen at a time; the others happen at a step, statement or commit of a process."""
OF_PROCESSES = frozenset(
    "kill freeze kill_statement kill_commit fail_statement fail_commit lose_commit cut_spill".split()
)
OF_HELPERS = frozenset("no_worker late_worker worker_dies unnoticed".split())


@dataclass(frozen=True, slots=True)
class Event:
    """Something happens: `kind` says what, at a time or at the n-th step, statement or commit of a process.

    `who` is the number of a process or of a machine, `size` the seconds that it lasts.
    """

    kind: str
    at: float = 0.0
    who: int = 0
    size: float = 0.0
    nth: int = 0

    def __post_init__(self) -> None:
        if self.kind not in AT_A_TIME | OF_PROCESSES | OF_HELPERS:
            raise ValueError(f"no such kind of event: {self.kind}")

    @property
    def is_timed(self) -> bool:
        """Whether `at` counts."""
        return self.kind in AT_A_TIME


@dataclass(frozen=True, slots=True)
class Night:
    """One night. `shared`: several machines share the ledger, whose clock judges leases then.

    `indexed`: the ledger has an index of words.
    """

    seed: int
    records: int = 12
    shared: bool = False
    hosts: int = 1
    starts: tuple[Start, ...] = ()
    events: tuple[Event, ...] = ()
    switches: tuple[tuple[str, Any], ...] = ()
    faults: tuple[EndpointFault, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    refused: tuple[int, ...] = ()
    skews: tuple[float, ...] = field(default=(0.0,))
    indexed: bool = False

    def parts(self) -> list["Night"]:
        """Return this night without each of its parts in turn."""
        smaller: list[Night] = []
        for name in ("events", "starts", "faults", "switches", "refused", "settings"):
            parts = getattr(self, name)
            smaller += [replace(self, **{name: parts[:n] + parts[n + 1 :]}) for n in range(len(parts))]
        if self.indexed:
            smaller.append(replace(self, indexed=False))
        if self.records > 1:
            smaller += [replace(self, records=self.records // 2), replace(self, records=self.records - 1)]
        for number, start in enumerate(self.starts):
            plain = Start(start.at, start.job)
            for name in ("again", "resumes", "refresh", "trial", "retries", "deployed", "shards", "max_cost", "limit"):
                if getattr(start, name) != getattr(plain, name):
                    eased = replace(start, **{name: getattr(plain, name)})
                    smaller.append(replace(self, starts=(*self.starts[:number], eased, *self.starts[number + 1 :])))
        return smaller
