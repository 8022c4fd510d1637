"""Read the outcome of each record in a step of an earlier run: its own generations, and what it found unchanged.

An unchanged record has no row of the run. While the run is open, its working rows list these records. Afterwards the
table `content` does, until a later run confirms or changes them. Then the generation that was current when the run
ended is the outcome, if a run has confirmed it since. It is not certain that this run did.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Select, and_, case, func, select

from db.columns import aliased
from db.readers.runs import counts_in, find_id, steps_of
from db.session import among, rows_of
from db.tables import Generation, StandingContent, StoredRun, WorkingRow
from db.tables.tried_rows import is_of_trial
from db.words import NOT_OVER, SUCCEEDED, TRY

_VARIANT = re.compile(r"(.*)/(?:0|[1-9]\d*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run whose outcomes are read. `steps` has its steps in order, each with the step that it was made from.

    Without `ended_at` it has not ended. `is_open` means that its working rows still list what it found unchanged.
    `unchanged` and `failing_again` are the steps in which it found contents and failures so.
    """

    id: str
    flow: str
    endpoint: str
    trigger: str
    parameters: Mapping[str, Any]
    started_at: datetime
    ended_at: datetime | None
    is_open: bool
    steps: Mapping[str, str | None]
    unchanged: frozenset[str] = frozenset()
    failing_again: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The outcome of a record in a step: the generation that counted. See the module for what is not `certain`."""

    record_key: str
    generation_id: str
    certain: bool = True


def find_past_run(engine: Engine, text: str) -> PastRun | None:
    """Return the run with this id, or with an id that begins or ends so; None if there is none or several."""
    with engine.connect() as connection:
        run_id = find_id(connection, StoredRun.id, text)
    if run_id is None:
        return None
    run = StoredRun.__table__.c
    row = rows_of(engine, select(StoredRun.__table__).where(run.id == run_id))[0]
    steps = steps_of(engine, run_id)
    began = {step["step"]: step["made_from"] for step in steps}
    return PastRun(
        *(row.id, row.flow, row.endpoint, row.trigger, row.parameters or {}, row.started_at, row.ended_at),
        is_open=row.status in NOT_OVER,
        # Runs of the first releases have generations, and no rows of their steps.
        steps=began or dict.fromkeys(_steps_with_rows(engine, run_id)),
        unchanged=frozenset(step["step"] for step in steps if step["unchanged"]),
        failing_again=frozenset(step["step"] for step in steps if step["failed_again"] or step["skipped_again"]),
    )


def read_outcomes(
    engine: Engine,
    run: PastRun,
    step: str,
    *,
    keys: Sequence[str] = (),
    limit: int | None = None,
    with_content: bool = False,
) -> list[StepOutcome]:
    """Return the outcomes of a step in the order of their keys; `with_content` leaves out those without content.

    With `keys`, only the outcomes of these records. If a key has no outcome itself, all of its variants are meant.
    """
    sources = list(_sources(run, step, with_content=with_content))
    if not keys:
        found = _found_in(engine, sources, [], limit)
    else:
        found = _found_in(engine, sources, keys)
        for key in [key for key in dict.fromkeys(keys) if key not in found]:
            variants = _found_in(engine, sources, [], variants_of=key)
            found |= {each: outcome for each, outcome in variants.items() if without_variant(each) == key}
    return [found[key] for key in sorted(found)][:limit]


def without_variant(key: str) -> str | None:
    """Return the key of the record whose variant this key may be: `digest` for `digest/3`; None if it can't be one."""
    parts = _VARIANT.fullmatch(key)
    return parts[1] if parts else None


_OutcomeRows = tuple[bool, tuple[Any, Any], Select[Any]]
"""Where outcomes are: whether they are certain, the columns with key and generation's id, and the rows."""


def _sources(run: PastRun, step: str, *, with_content: bool) -> Iterator[_OutcomeRows]:
    """Yield where a run's outcomes are: of a record, the first one counts."""
    g, w, c = Generation, WorkingRow, StandingContent
    good = [g.status == SUCCEEDED] if with_content else []
    yield True, (g.record_key, g.id), select(g.id).where(counts_in(run.id), g.step == step, *good)
    if run.is_open:
        confirmed = (w.run_id == run.id, w.step == step, w.status.is_not(None))
        only = [w.status == SUCCEEDED] if with_content else []
        yield True, (w.record_key, w.generation_id), select(w.generation_id).where(*confirmed, *only)
        return
    # A step without any is not searched: its content may be that of a million records.
    searched = [(c.generation_id, c.confirmed_run_id)] if step in run.unchanged else []
    if step in run.failing_again and not with_content:
        searched.append((c.failing_id, c.failing_run_id))
    place = (c.flow == run.flow, c.step == step, c.endpoint == run.endpoint)
    for column, by in searched:
        confirmed_last = select(column).join(g, g.id == column).where(*place, by == run.id, g.run_id != run.id)
        yield True, (c.record_key, column), confirmed_last
    if step in run.unchanged and run.trigger != TRY:
        yield False, (g.record_key, g.id), _confirmed_since(run, step)


def _confirmed_since(run: PastRun, step: str) -> Select[Any]:
    """Select the contents that were current when a run ended, are older than it, and were confirmed since it began."""
    g, c, newer = Generation, StandingContent, aliased(Generation)
    same = [getattr(newer, name) == getattr(g, name) for name in ("flow", "step", "endpoint", "record_key")]
    until = newer.created_at <= run.ended_at if run.ended_at else newer.id.is_not(None)
    replaced = (
        select(newer.id)
        .where(*same, newer.status == SUCCEEDED, newer.id > g.id, until, ~is_of_trial(newer.run_id))
        .exists()
    )
    current = and_(*(getattr(c, name) == getattr(g, name) for name in ("flow", "step", "endpoint", "record_key")))
    confirmed_at = case((c.generation_id == g.id, c.confirmed_at), else_=g.confirmed_at)
    of_step = (g.flow == run.flow, g.step == step, g.endpoint == run.endpoint, g.status == SUCCEEDED)
    older = (g.created_at < run.started_at, confirmed_at >= run.started_at, ~is_of_trial(g.run_id), ~replaced)
    return select(g.id).outerjoin(c, current).where(*of_step, *older)


def _found_in(
    engine: Engine,
    sources: Sequence[_OutcomeRows],
    keys: Sequence[str],
    limit: int | None = None,
    *,
    variants_of: str | None = None,
) -> dict[str, StepOutcome]:
    found: dict[str, StepOutcome] = {}
    for certain, (key, generation_id), statement in sources:
        chosen = statement.where(among(key, keys, engine.dialect.name)) if keys else statement
        if variants_of is not None:
            # "0" follows "/", so this is a range of the index.
            chosen = statement.where(key >= f"{variants_of}/", key < f"{variants_of}0")
        rows = rows_of(engine, chosen.with_only_columns(key, generation_id).order_by(key).limit(limit))
        for record_key, each in rows:
            found.setdefault(record_key, StepOutcome(record_key, each, certain))
    return found


def _steps_with_rows(engine: Engine, run_id: str) -> list[str]:
    steps = select(Generation.step).where(counts_in(run_id)).group_by(Generation.step)
    return [row.step for row in rows_of(engine, steps.order_by(func.min(Generation.id)))]
