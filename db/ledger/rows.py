"""The rows that are written to the ledger, typed: one class for each kind, with the columns of its table.

Frozen dataclasses, because a row is read by name in five modules between its making and its commit. What a database
driver takes is a mapping: `values_of` makes it, for 2 microseconds a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, get_args

from db.words import Kind, Origin, RunStatus, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run that begins; its lease is given to it in the same transaction."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRow:
    """A template as it is now: its sources by file name."""

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
    """The one update of an attempt: how it ended, what it used and what it cost."""

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
    """What one prompt brought for one record and step."""

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
    """What a generation was made from."""

    table: ClassVar[str] = "generation_parents"

    generation_id: str
    parent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedRow:
    """A record for which nothing has changed: what stood for it before, content or a failure, still does."""

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
"""The parts of a WriteBatch, by the name under which a spill file has them."""
_NAMES: Mapping[type, tuple[str, ...]] = {kind: tuple(column.name for column in fields(kind)) for kind in get_args(Row)}


@dataclass
class WriteBatch:
    """Rows that belong in the ledger together; shared rows by their hash, so that a batch holds each once.

    `released` are the claims that these outcomes end, as (owner, prompt hash).
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
        """Count the rows of history and what is confirmed, which is what a commit is sized by."""
        return len(self.opened) + len(self.settled) + len(self.generations) + len(self.confirmed)

    def parts(self) -> Iterator[tuple[str, Sequence[Row]]]:
        """Yield its rows in the order in which they are written; each part stands on those before it.

        Shared rows are in one order everywhere: two runs that add the same ones wait for each other, never in a circle.
        """
        for name in PARTS:
            rows = getattr(self, name)
            yield name, [row for _hash, row in sorted(rows.items())] if isinstance(rows, dict) else rows


def values_of(row: Row) -> dict[str, Any]:
    """Return a row as column names and values."""
    return {name: getattr(row, name) for name in _NAMES[type(row)]}


def names_of(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of a kind's columns, in their order."""
    return _NAMES[kind]


def id_of(row: Row) -> str:
    """Return the first column: the id of an attempt, a run or a generation, or the hash of what is known by it."""
    return str(getattr(row, _NAMES[type(row)][0]))
