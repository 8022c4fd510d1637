"""Promises broken on purpose, each by one line of the product that is replaced, to show that nights find it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, select

from db.ledger.claims import take
from db.readers.chains import Spent
from db.session import rows_of
from db.tables import Claim, Generation
from db.tables.content_upserts import ContentStatements, content_of, content_statements, failing_of
from db.tables.prepared import among_those, prepared
from db.words import OPEN
from presswork.answers.outcomes import Policy
from presswork.output_classes.validate import Content
from presswork.prices import cost_of
from presswork.settings import Settings
from tests.nights.playing import DRIVER, Outcome
from tests.nights.promised.promises import Violation
from tests.nights.promised.secrets_kept import UNEXPECTED

MOST_SEEDS = 1_000


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """What is broken: `target` is the dotted path of what is replaced. `is_slow`: it takes many nights to find.

    With `interleaved`, it shows only if another process commits between two transactions of one job.
    """

    name: str
    target: str
    replacement: Any
    is_slow: bool = False
    interleaved: bool = False


async def _at_once(*_given: Any, **_options: Any) -> None:
    """Wait for nothing."""


def _take_what_was_free(engine: Engine, owner: str, hashes: Iterable[str]) -> set[str]:
    """Claim prompts, and also return those that had no other owner in the transaction before."""
    wanted = tuple(hashes)
    of_others = {row.prompt_hash for row in rows_of(engine, select(Claim.prompt_hash).where(Claim.owner != owner))}
    return take(engine, owner, wanted) | set(wanted) - of_others


def _nothing(*_given: Any, **_options: Any) -> None:
    """Do nothing."""


async def _without_cap(_spending: Any, _model: str, likely: Callable[[], Any], _stopped: Any) -> Any:
    return likely()


def _any_content(_output_class: Any, text: str) -> Content:
    try:
        output = orjson.loads(text)
    except ValueError:
        output = {"subject": text[:40] or "?", "preview": text}
    return Content(output, "0" * 64)


def _with_trials(dialect: str) -> ContentStatements:
    written = among_those(Generation.id, "ids", dialect)
    return ContentStatements(
        content_statements(dialect).confirmed,
        prepared(content_of(dialect, written), dialect),
        prepared(failing_of(dialect, written), dialect),
    )


def _file_without_rows(folder: Path, run_id: str, _batch: Any) -> Path:
    return folder / f"{run_id}.spill"


def _any_number(settings: Settings) -> Policy:
    return Policy(repairs=settings.repairs, escalations=settings.escalations, paid_requests=1_000)


BROKEN_PROMISES = (
    BrokenPromise("every claim is granted", "db.ledger.claims.take", lambda _engine, _owner, hashes: set(hashes)),
    BrokenPromise(
        "claims are granted by an earlier look",
        "db.ledger.claims.take",
        _take_what_was_free,
        is_slow=True,
        interleaved=True,
    ),
    BrokenPromise("the look-up finds nothing", "presswork.engine.resources.run_ledger.look_up", lambda *_a, **_o: {}),
    BrokenPromise("nobody waits for a commit", "presswork.engine.resources.writer.Writer.committed", _at_once),
    BrokenPromise("a commit does not check its lease", "db.ledger.leases.check", _nothing),
    BrokenPromise(
        "no request waits for the lease", "presswork.engine.resources.lease.HeldLease.ready", _at_once, is_slow=True
    ),
    BrokenPromise("every answer is valid", "presswork.answers.outcomes.validate_answer", _any_content),
    BrokenPromise("no request is too expensive", "presswork.pacing.spending.Spending.reserve", _without_cap),
    BrokenPromise("unwritten rows are dropped", "presswork.engine.resources.writer.keep_batch", _file_without_rows),
    BrokenPromise("a spill file is deleted unread", "db.ledger.spill.write", _nothing, is_slow=True),
    BrokenPromise("a prompt is paid for without a bound", "presswork.engine.opening._policy", _any_number),
    BrokenPromise("no step is done", "db.ledger.lifecycle.DONE", OPEN),
    BrokenPromise("a step is done only at the close", "db.ledger.lifecycle.end_step", _nothing),
    BrokenPromise("no attempt has an end", "presswork.engine.resources.writer.Writer.settle_attempt", _nothing),
    BrokenPromise("a lease is shorter than its heartbeat", "db.ledger.leases.LEASE_S", 5.0, is_slow=True),
    BrokenPromise("a living process has crashed", "db.ledger.leases.fate_of", lambda *_a, **_o: "gone"),
    BrokenPromise("rows after the end leave the rollups", "db.ledger.writing.unmark", _nothing, is_slow=True),
    BrokenPromise("a trial's answers are content", "db.ledger.standing.content_statements", _with_trials, is_slow=True),
    BrokenPromise(
        "a resumed run has all of the cap",
        "presswork.engine.resources.run_ledger.spent_by_chain",
        lambda *_a: Spent(),
        is_slow=True,
    ),
    BrokenPromise("lost answers cost nothing", "presswork.pacing.spending.PERHAPS_BILLED", frozenset(), is_slow=True),
    BrokenPromise(
        "no row replaces another", "db.ledger.writing.mark_replaced", lambda _c, rows: list(rows), is_slow=True
    ),
    BrokenPromise("open attempts stay open", "db.ledger.leases.settle_open", lambda *_a: 0),
    BrokenPromise(
        "ids are by the machine's clock", "db.machine.LedgerClock.now_s", lambda clock: clock._machine.wall_time_s()
    ),
    BrokenPromise("no closed run is indexed", "presswork.engine.resources.run_ledger.index_closed", _nothing),
    BrokenPromise(
        "cost is rounded",
        "presswork.answers.pursuing.cost_of",
        lambda *given: (cost_of(*given) or Decimal(0)).quantize(Decimal("1e-4")),
    ),
)
"""All of them."""


def find(
    broken: BrokenPromise,
    play: Callable[[int], Outcome],
    breaks: Callable[[int], tuple[str, ...]],
    most: int = MOST_SEEDS,
) -> tuple[int, Violation] | None:
    """Play nights with this promise broken until one shows it; returns how many that took, and what it shows.

    `play` plays the night of a seed. `breaks` says what that night breaks when nothing is broken on purpose: this does
    not count. Nor does an error that nobody handles: a replacement that no longer fits raises one.
    """
    for seed in range(most):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(broken.target, broken.replacement)
            violations = play(seed).violations
        found = next((each for each in violations if each.promise not in {*breaks(seed), DRIVER, UNEXPECTED}), None)
        if found is not None:
            return seed + 1, found
    return None
