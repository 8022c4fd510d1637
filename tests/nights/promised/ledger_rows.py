"""The rows of a ledger's file, read with plain SQL and by none of the product's readers.

Money is in whole units of 1e-10 dollars, the last digit that the ledger stores.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class KeptRun:
    id: str
    flow: str
    endpoint: str
    status: str
    trigger: str = "command"
    started_at: str = "2026-11-26 00:00:00.000000"
    ended_at: str | None = None
    resumes_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class KeptStep:
    run_id: str
    step: str
    state: str = "done"
    made_from: str | None = None
    total: int | None = None
    left_out: int = 0
    unchanged: int = 0
    failed_again: int = 0
    skipped_again: int = 0


@dataclass(frozen=True, slots=True)
class KeptLease:
    id: str
    run_id: str
    worker: str
    epoch: int = 1


@dataclass(frozen=True, slots=True)
class KeptClaim:
    prompt_hash: str
    owner: str


@dataclass(frozen=True, slots=True)
class KeptWork:
    run_id: str
    step: str
    record_key: str
    status: str | None = None


@dataclass(frozen=True, slots=True)
class KeptGeneration:
    id: str
    run_id: str
    flow: str
    step: str
    endpoint: str
    record_key: str
    status: str
    origin: str
    created_at: str = "2026-11-26 00:00:00.000000"
    record_hash: str | None = None
    template_hash: str = ""
    prompt_hash: str | None = None
    source_generation_id: str | None = None
    output: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    replaced_by: str = ""


@dataclass(frozen=True, slots=True)
class KeptContent:
    flow: str
    step: str
    endpoint: str
    record_key: str
    generation_id: str | None = None
    since: str | None = None
    confirmed_run_id: str | None = None
    confirmed: int = 0
    failing_id: str | None = None
    failing_run_id: str | None = None
    failing: int = 0


@dataclass(frozen=True, slots=True)
class KeptAttempt:
    id: str
    run_id: str
    prompt_hash: str
    generation_id: str
    ordinal: int = 1
    kind: str = "call"
    started_at: str = "2026-11-26 00:00:00.000000"
    ended_at: str | None = "2026-11-26 00:00:01.000000"
    latency_ms: int | None = None
    http_status: int | None = None
    error_type: str | None = None
    request_id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    output_text: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_5m_tokens: int | None = None
    cache_creation_1h_tokens: int | None = None
    cache_read_tokens: int | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    cost_usd: int | None = None
    likely_cost_usd: int | None = None
    lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    hash: str
    model: str
    request: str


@dataclass(frozen=True, slots=True)
class LedgerRows:
    """All rows of a ledger that the promises are about; `records` are bodies by hash.

    The rollups and the view are rows as mappings, because their columns are compared by name.
    """

    runs: tuple[KeptRun, ...] = ()
    steps: tuple[KeptStep, ...] = ()
    leases: tuple[KeptLease, ...] = ()
    claims: tuple[KeptClaim, ...] = ()
    working: tuple[KeptWork, ...] = ()
    generations: tuple[KeptGeneration, ...] = ()
    content: tuple[KeptContent, ...] = ()
    attempts: tuple[KeptAttempt, ...] = ()
    prompts: tuple[KeptPrompt, ...] = ()
    records: Mapping[str, str] = field(default_factory=dict)
    rolled_up: frozenset[str] = frozenset()
    rollups: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    usage_by_day: tuple[Mapping[str, Any], ...] = ()


ROLLUPS = ("usage_rollup", "outcome_rollup", "prompt_cache_rollup")
_MONEY = frozenset({"cost_usd", "likely_cost_usd", "likely_usd", "saved_usd"})


def read_rows(ledger: Path) -> LedgerRows:
    """Read a SQLite ledger that nobody writes any more."""
    with closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        return LedgerRows(
            runs=_read(connection, "runs", KeptRun),
            steps=_read(connection, "run_steps", KeptStep),
            leases=_read(connection, "leases", KeptLease),
            claims=_read(connection, "claims", KeptClaim),
            working=_read(connection, "working_rows", KeptWork),
            generations=_read(connection, "generations", KeptGeneration),
            content=_read(connection, "content", KeptContent),
            attempts=_read(connection, "attempts", KeptAttempt),
            prompts=_read(connection, "prompts", KeptPrompt),
            records=dict(map(tuple, connection.execute("SELECT hash, body FROM records"))),
            rolled_up=frozenset(row[0] for row in connection.execute("SELECT run_id FROM rolled_up")),
            rollups={name: _mappings(connection, name) for name in ROLLUPS},
            usage_by_day=_mappings(connection, "usage_by_day"),
        )


def units(dollars: Decimal | float | None) -> int | None:
    """Turn an amount into whole units of 1e-10 dollars."""
    return None if dollars is None else int(Decimal(str(dollars)).scaleb(10).to_integral_value())


def _read(connection: sqlite3.Connection, table: str, kind: type[Kept]) -> tuple[Kept, ...]:
    names = [each.name for each in fields(cast("Any", kind))]
    rows = connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1, 2")
    money = [number for number, name in enumerate(names) if name in _MONEY]
    return tuple(kind(*_with_units(row, money)) for row in rows)


def _with_units(row: sqlite3.Row, money: list[int]) -> list[Any]:
    values = list(row)
    for number in money:
        values[number] = units(values[number])
    return values


def _mappings(connection: sqlite3.Connection, table: str) -> tuple[Mapping[str, Any], ...]:
    rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
    return tuple({name: units(value) if name in _MONEY else value for name, value in row.items()} for row in rows)
