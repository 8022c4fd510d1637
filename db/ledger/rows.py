"""Typed rows to be written to the ledger: one class for each kind, with the columns of its table.

They are frozen dataclasses, because five modules read a row's fields by name before its commit. Database drivers take
mappings; `values_of` makes one in about 2 microseconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, get_args

from db.words import NOT_SENT, Kind, Origin, RunStatus, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run that begins; the transaction that inserts it also takes its lease."""

    table: ClassVar[str] = "runs"

    id: str
    resumes_run_id: str | None = None
    parent_run_id: str | None = None
    flow: str
    deployment: str | None = None
    prefect_flow_run_id: str | None = None
    trigger: str
    parameters: Mapping[str, Any]
    code_version: str
    endpoint: str
    mode: str
    started_at: datetime
    ended_at: datetime | None = None
    status: RunStatus
    process: str
    alive_until: datetime


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step as a process begins it: what its records were made from, how many it counted, how many it left out."""

    table: ClassVar[str] = "run_steps"

    step: str
    made_from: str | None = None
    total: int | None = None
    left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRow:
    """The current version of a template: its sources by file name."""

    table: ClassVar[str] = "templates"

    hash: str
    name: str
    sources: Mapping[str, str]
    first_seen_at: datetime


@dataclass(frozen=True, slots=True)
class TextRow:
    """A text that many prompts share."""

    table: ClassVar[str] = "texts"

    hash: str
    body: str


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A record as it was read, as canonical JSON."""

    table: ClassVar[str] = "records"

    hash: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """A request, with its shared texts by hash."""

    table: ClassVar[str] = "prompts"

    hash: str
    model: str
    variant: int
    request: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRow:
    """An attempt that is about to be sent."""

    table: ClassVar[str] = "attempts"

    id: str
    run_id: str
    prompt_hash: str
    generation_id: str
    ordinal: int
    kind: Kind
    request_changes: Mapping[str, Any] | None = None
    started_at: datetime
    likely_cost_usd: Decimal | None = None
    lease_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledRow:
    """The single update of an attempt: its end, usage and cost."""

    table: ClassVar[str] = "attempts"

    attempt_id: str
    ended_at: datetime
    latency_ms: int | None = None
    http_status: int | None = None
    error_type: str | None = None
    request_id: str | None = None
    message_id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    output_text: str | None = None
    validation_errors: list[dict[str, Any]] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_5m_tokens: int | None = None
    cache_creation_1h_tokens: int | None = None
    cache_read_tokens: int | None = None
    thinking_tokens: int | None = None
    service_tier: str | None = None
    cost_usd: Decimal | None = None
    inference_geo: str | None = None
    speed: str | None = None
    price_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRow:
    """The outcome of one prompt for one record and step."""

    table: ClassVar[str] = "generations"

    id: str
    run_id: str
    flow: str
    step: str
    endpoint: str
    record_key: str
    record_hash: str | None
    template_hash: str
    prompt_hash: str | None
    status: Status
    origin: Origin
    source_generation_id: str | None = None
    output: Any = None
    output_hash: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    created_at: datetime
    replaced_by: str = ""
    lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class ParentRow:
    """A parent of a generation: an earlier step's generation from which it was made."""

    table: ClassVar[str] = "generation_parents"

    generation_id: str
    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedRow:
    """An unchanged record: its earlier outcome, content or a failure, is still current."""

    table: ClassVar[str] = "working_rows"

    run_id: str
    step: str
    record_key: str
    status: Status
    generation_id: str
    confirmed_at: datetime
    lease_id: str | None = None


Row = (
    RunRow
    | StepRow
    | TemplateRow
    | TextRow
    | RecordRow
    | PromptRow
    | OpenedRow
    | SettledRow
    | GenerationRow
    | ParentRow
    | ConfirmedRow
)


PARTS: Mapping[str, type[Row]] = {
    "texts": TextRow,
    "records": RecordRow,
    "prompts": PromptRow,
    "opened": OpenedRow,
    "settled": SettledRow,
    "generations": GenerationRow,
    "parents": ParentRow,
    "confirmed": ConfirmedRow,
}
"""The parts of a WriteBatch, by their names in spill files."""
_NAMES: Mapping[type, tuple[str, ...]] = {kind: tuple(column.name for column in fields(kind)) for kind in get_args(Row)}


@dataclass
class WriteBatch:
    """Rows that are committed together; shared rows are keyed by hash, so that a batch contains each once.

    `released` are the claims that these outcomes end, each an (owner, prompt hash).
    """

    texts: dict[str, TextRow] = field(default_factory=dict)
    records: dict[str, RecordRow] = field(default_factory=dict)
    prompts: dict[str, PromptRow] = field(default_factory=dict)
    opened: list[OpenedRow] = field(default_factory=list)
    settled: list[SettledRow] = field(default_factory=list)
    generations: list[GenerationRow] = field(default_factory=list)
    parents: list[ParentRow] = field(default_factory=list)
    confirmed: list[ConfirmedRow] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the rows of history and the confirmations, which determine the size of a commit."""
        return len(self.opened) + len(self.settled) + len(self.generations) + len(self.confirmed)

    def end_unsent(self, at: datetime) -> None:
        """Settle the attempts that are opened here as not sent, as each request waits for the commit of its attempt."""
        self.settled += [not_sent(row.id, at) for row in self.opened]

    def parts(self) -> Iterator[tuple[str, Sequence[Row]]]:
        """Yield the parts in the order of writing; each may refer to rows of the parts before it.

        Shared rows are always sorted, so that two runs that add the same ones can't deadlock.
        """
        for name in PARTS:
            rows = getattr(self, name)
            yield name, [row for _hash, row in sorted(rows.items())] if isinstance(rows, dict) else rows


def not_sent(attempt_id: str, at: datetime) -> SettledRow:
    """Settle an attempt whose request was never sent."""
    return SettledRow(attempt_id=attempt_id, ended_at=at, latency_ms=0, error_type=NOT_SENT)


def values_of(row: Row) -> dict[str, Any]:
    """Return a row as column names and values."""
    return {name: getattr(row, name) for name in _NAMES[type(row)]}


def names_of(kind: type[Any]) -> tuple[str, ...]:
    """Return the column names of a kind of row, in order."""
    return _NAMES[kind]


def id_of(row: Row) -> str:
    """Return a row's first column: the id of a run, attempt or generation, or the hash of a shared row."""
    return str(getattr(row, _NAMES[type(row)][0]))
