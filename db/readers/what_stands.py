"""Read the current outcomes of a page of records, and the outcomes that a run already has of them.

Reads by key, so that a page takes a few statements no matter how long the records' history is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import Engine, Select, Text, bindparam, cast, func, literal, or_, select

from db.readers.look_up import PromptHistory
from db.session import among, rows_of
from db.tables import Attempt, Generation, GenerationParent, StandingContent, WorkingRow
from db.tables.prepared import among_those, one_value
from db.words import CACHE, FAILED, PERHAPS_BILLED, SKIPPED, Status


@dataclass(frozen=True, slots=True)
class Failing:
    """The newest outcome of a record, if it has no content."""

    generation_id: str
    status: Status
    error_kind: str | None
    error_message: str | None
    record_hash: str | None
    template_hash: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A record's current content, if any, and the failure that came after it, if any.

    `written_by` is the generation that has the content's text, the answer to the prompt `prompt_hash`; `answer` is what
    a look-up of that prompt would find. `parents` are empty unless requested.
    """

    generation_id: str | None
    written_by: str | None
    record_hash: str | None
    template_hash: str | None
    parents: frozenset[str]
    failing: Failing | None
    prompt_hash: str | None = None
    answer: PromptHistory | None = None


@dataclass(frozen=True, slots=True)
class OwnOutcome:
    """The outcome that a run already has of a record.

    If it is `confirmed`, the generation is an earlier run's. `cached` means that this run did not request it.
    `by_helper` means that a helper wrote or confirmed it. `parents` are empty unless requested. `paid` counts the run's
    requests for a failed or skipped record that were answered or perhaps billed.
    """

    generation_id: str
    status: Status
    error_kind: str | None
    record_hash: str | None
    template_hash: str
    confirmed: bool
    cached: bool = False
    by_helper: bool = False
    parents: frozenset[str] = frozenset()
    paid: int = 0


_current, _source, _failing = (Generation.__table__.alias(name) for name in ("current", "source", "failing"))
_CURRENT = (
    select(
        StandingContent.record_key,
        _current.c.id,
        func.coalesce(_current.c.source_generation_id, _current.c.id),
        _current.c.record_hash,
        _current.c.template_hash,
        _current.c.prompt_hash,
        _current.c.output_hash,
        cast(func.coalesce(_current.c.output, _source.c.output), Text),
        *(_failing.c[name] for name in ("id", "status", "error_kind", "error_message", "record_hash", "template_hash")),
    )
    .outerjoin(_current, _current.c.id == StandingContent.generation_id)
    .outerjoin(_source, _source.c.id == _current.c.source_generation_id)
    .outerjoin(_failing, _failing.c.id == StandingContent.failing_id)
)


def read_standing(
    engine: Engine, flow: str, step: str, endpoint: str, keys: Sequence[str], *, with_parents: bool
) -> dict[str, Standing]:
    """Return the current content and failure of these records, by key; records without any outcome are left out."""
    dialect = engine.dialect.name
    place = {"of_flow": flow, "of_step": step, "of_endpoint": endpoint, "of_keys": one_value(keys, dialect)}
    found: dict[str, Standing] = {}
    for key, generation_id, written_by, record_hash, template_hash, prompt, output_hash, output, *failed in rows_of(
        engine, _current_of(dialect), place
    ):
        failing_now = None if failed[0] is None else Failing(*failed)
        answer = None if written_by is None else PromptHistory(written_by, output, output_hash, record_hash)
        found[key] = Standing(
            generation_id, written_by, record_hash, template_hash, frozenset(), failing_now, prompt, answer
        )
    if with_parents:
        parents = _parents_of(engine, [each.generation_id for each in found.values() if each.generation_id])
        found = {key: replace(each, parents=parents[each.generation_id]) for key, each in found.items()}
    return found


@cache
def _current_of(dialect: str) -> Select[Any]:
    c = StandingContent
    place = (c.flow == bindparam("of_flow"), c.step == bindparam("of_step"), c.endpoint == bindparam("of_endpoint"))
    return _CURRENT.where(*place, among_those(c.record_key, "of_keys", dialect))


def read_own_outcomes(
    engine: Engine, run_id: str, step: str, keys: Sequence[str], *, with_parents: bool
) -> dict[str, OwnOutcome]:
    """Return the outcomes that a run already has of these records, by key: its own generations and confirmations."""
    dialect = engine.dialect.name
    place = {"of_run": run_id, "of_step": step, "of_keys": one_value(keys, dialect)}
    found = {
        row[0]: OwnOutcome(row[1], row[2], row[3], row[4], row[5], row[6], row[7], by_helper=row[8] is not None)
        for statement in _own_outcomes(dialect)
        for row in rows_of(engine, statement, place)
    }
    if with_parents:
        parents = _parents_of(engine, [each.generation_id for each in found.values()])
        found = {key: replace(each, parents=parents[each.generation_id]) for key, each in found.items()}
    unfinished = [key for key, each in found.items() if each.status in {FAILED, SKIPPED} and not each.confirmed]
    for key, paid in _paid(engine, run_id, step, unfinished).items():
        found[key] = replace(found[key], paid=paid)
    return found


@cache
def _own_outcomes(dialect: str) -> tuple[Select[Any], ...]:
    """Make the statements that select what a run confirmed and what it wrote."""
    g, w = Generation, WorkingRow
    run: Any = bindparam("of_run")
    step: Any = bindparam("of_step")
    outcome = [g.__table__.c[name] for name in ("id", "status", "error_kind", "record_hash", "template_hash")]
    confirmed = (
        select(w.record_key, *outcome, literal(value=True), literal(value=True), w.lease_id)
        .join(g, g.id == w.generation_id)
        .where(w.run_id == run, w.step == step, w.status.is_not(None), among_those(w.record_key, "of_keys", dialect))
    )
    written = select(g.record_key, *outcome, literal(value=False), g.origin == CACHE, g.lease_id)
    counts = (g.run_id == run, g.replaced_by == "", g.step == step)
    return confirmed, written.where(*counts, among_those(g.record_key, "of_keys", dialect))


def _parents_of(engine: Engine, generation_ids: Sequence[str]) -> defaultdict[str | None, frozenset[str]]:
    """Return the parents of generations, by the generations' ids."""
    found = defaultdict[str | None, frozenset[str]](frozenset)
    pairs = select(GenerationParent.generation_id, GenerationParent.parent_id)
    children = among(GenerationParent.generation_id, generation_ids, engine.dialect.name)
    for child, parent in rows_of(engine, pairs.where(children)):
        found[child] |= {parent}
    return found


def _paid(engine: Engine, run_id: str, step: str, keys: Sequence[str]) -> dict[str, int]:
    """Count a run's requests for these records that were answered or perhaps billed, replaced generations included."""
    if not keys:
        return {}
    # The same as in presswork/answers/pursuing.py, which also counts an answer from a wrong endpoint.
    paid = or_(
        Attempt.error_type.is_(None),
        Attempt.error_type.in_(PERHAPS_BILLED),
        Attempt.output_text.is_not(None),
        Attempt.input_tokens.is_not(None),
    )
    of_keys = among(Generation.record_key, keys, engine.dialect.name)
    statement = (
        select(Generation.record_key, func.count())
        .join(Attempt, Attempt.generation_id == Generation.id)
        .where(Generation.run_id == run_id, Generation.step == step, of_keys, Attempt.run_id == run_id, paid)
        .group_by(Generation.record_key)
    )
    return {row[0]: row[1] for row in rows_of(engine, statement)}
