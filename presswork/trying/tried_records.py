"""Read what became of each record of a trial, also while the trial goes on."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine

from db.database_errors import DatabaseError
from db.readers.stored_generations import Audit, read_generation
from db.readers.what_stands import OwnOutcome, read_own_outcomes
from db.words import CONNECT, COST_CAP, FAILED, PERHAPS_BILLED, SUCCEEDED, UNSENT
from presswork.engine.run import Run
from presswork.errors import PressworkError, may_pass
from presswork.output_classes.validate import Fault
from presswork.report.sent_prompts import sent_prompt
from presswork.trying.trials import SKIPPED_BY_CAP, TokenCounts, TriedRecord

NEXT_LOOK_S = 0.05
"""Seconds between two looks for records that have ended."""
TellRecord = Callable[[TriedRecord], None]
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_5m_tokens", "cache_creation_1h_tokens")


class EndedRecords:
    """The records of an open run of one step that have ended, by key; `tell` is called once for each."""

    def __init__(self, run: Run, step: str, keys: Sequence[str], tell: TellRecord) -> None:
        self._run = run
        self._step = step
        self._keys = keys
        self._tell = tell
        self._found: dict[str, TriedRecord] = {}
        self._looking = asyncio.Lock()

    async def keep_looking(self) -> None:
        """Look again and again, until the task is cancelled."""
        while True:
            await asyncio.sleep(NEXT_LOOK_S)
            if self._run.context.progress.done_in_step > len(self._found):
                # The last look, when the step has ended, raises what stays wrong.
                with suppress(DatabaseError, PressworkError):
                    await self.look()

    async def look(self) -> list[TriedRecord]:
        """Return the records that have ended by now, in the order of their keys."""
        ledger = self._run.ledger
        async with self._looking:
            left = [key for key in self._keys if key not in self._found]
            new = await ledger.writer.read(_read_ended, ledger.engine, ledger.run_id, self._step, left)
            for key, record in new.items():
                self._tell(record)
                self._found[key] = record
        return [self._found[key] for key in self._keys if key in self._found]


def _read_ended(ledger: Engine, run_id: str, step: str, keys: Sequence[str]) -> dict[str, TriedRecord]:
    own = read_own_outcomes(ledger, run_id, step, keys, with_parents=False)
    audits = {key: read_generation(ledger, own[key].generation_id) for key in keys if key in own}
    return {key: _tried(ledger, key, run_id, own[key], audit) for key, audit in audits.items() if audit is not None}


def _tried(ledger: Engine, key: str, run_id: str, outcome: OwnOutcome, audit: Audit) -> TriedRecord:
    sent = sent_prompt(ledger, audit)
    attempts = [attempt for attempt in audit.attempts if attempt["run_id"] == run_id and not outcome.cached]
    refused = [attempt for attempt in attempts if attempt["validation_errors"]]
    faults = refused[-1]["validation_errors"] if refused else ()
    has_content = outcome.status == SUCCEEDED
    return TriedRecord(
        key=key,
        generation_id=outcome.generation_id,
        status=outcome.status,
        is_cached=outcome.cached and has_content,
        system="\n".join(said.text for said in sent.system) if sent else "",
        prompt="".join(piece.text for piece in sent.user.pieces) if sent else "",
        sent=sent,
        output=(audit.source or audit.generation)["output"] if has_content else None,
        raw=attempts[-1]["output_text"] if attempts and not has_content else None,
        faults=tuple(Fault(fault["where"], fault["what"]) for fault in faults),
        error=_error(audit.generation, attempts),
        requests=sum(attempt["error_type"] not in UNSENT for attempt in attempts),
        tokens=_tokens(attempts),
        cost_usd=_cost(attempts),
        latency_ms=sum(attempt["latency_ms"] or 0 for attempt in attempts),
        elapsed_ms=_elapsed(attempts),
        answer_tokens=_tokens(audit.attempts),
        answer_usd=_cost(audit.attempts),
    )


def _error(generation: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> str | None:
    if generation["error_kind"] == COST_CAP:
        return SKIPPED_BY_CAP
    told: str | None = generation["error_message"]
    if told is not None and generation["status"] == FAILED and attempts and _may_pass(attempts[-1]):
        # A run tries again by itself later, but a trial does not.
        return f"{told.rstrip('.')}. The endpoint is busy or unavailable. Try again later."
    return told


def _may_pass(attempt: Mapping[str, Any]) -> bool:
    status = attempt["http_status"]
    if status is None:
        return attempt["error_type"] in {CONNECT, *PERHAPS_BILLED}
    return may_pass(status)


def _elapsed(attempts: Sequence[Mapping[str, Any]]) -> int:
    ends = [attempt["ended_at"] for attempt in attempts if attempt["ended_at"] is not None]
    if not ends:
        return 0
    between: timedelta = max(ends) - attempts[0]["started_at"]
    return between // timedelta(milliseconds=1)


def _tokens(attempts: Sequence[Mapping[str, Any]]) -> TokenCounts:
    plain, output, read, *written = (sum(attempt[name] or 0 for attempt in attempts) for name in _TOKENS)
    return TokenCounts(plain + read + sum(written), output, read, sum(written))


def _cost(attempts: Sequence[Mapping[str, Any]]) -> Decimal | None:
    """Add up the cost of answers; None if one has no known price."""
    answered = [attempt["cost_usd"] for attempt in attempts if attempt["input_tokens"] is not None]
    return None if None in answered else sum(answered, Decimal(0))
