"""Say why each outcome of a record came: what had changed since its content before, or why it was requested again.

A page of a life takes a few statements, however long the life is.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import orjson
from sqlalchemy import Engine, func, literal, select, union_all

from db.readers.lives import LifePeriod
from db.session import in_parts, rows_of
from db.tables import Generation, GenerationParent, StoredPrompt, StoredRecord, StoredRun, StoredTemplate
from db.words import CACHE, SUCCEEDED

ReasonKind = Literal[
    "first", "record", "template", "parents", "variant", "settings", "refresh", "reused", "requested again"
]
_WORDS: Mapping[ReasonKind, str] = {
    "first": "first outcome",
    "record": "record changed",
    "template": "template changed",
    "parents": "new answers of earlier steps",
    "variant": "another variant was requested",
    "settings": "parameters or output class changed",
    "refresh": "requested again by a refresh",
    "reused": "an earlier answer was reused",
    "requested again": "requested again",
}
SAID = 6
"""How many names a reason lists in words."""
PAIRS = 50
"""Generations that are compared in one statement."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that differs from the content before.

    `names` are the record's changed fields, the steps whose answers are new, or the changed parts of the request.
    """

    kind: ReasonKind
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say it in a few words; names are as the user wrote them, and not made visible."""
        more = f" and {len(self.names) - SAID} more" if len(self.names) > SAID else ""
        return _WORDS[self.kind] + (f": {', '.join(self.names[:SAID])}{more}" if self.names else "")


@dataclass(frozen=True, slots=True)
class ExplainedPeriod:
    """A period of a record's life, and why it began.

    `before` is the content that was current when it began, if any, `before_template` that content's template version.
    `failures` counts the periods of failure between that content and this outcome. With `same_answer` the text is the
    same as before: it was confirmed for a record, a template or parents that had changed. With `sources_stored` the
    template changed, and the ledger has the sources of both versions, which it lacks for a step made in code.
    """

    period: LifePeriod
    origin: str
    before: str | None
    before_template: str | None
    reasons: tuple[Reason, ...]
    failures: int
    same_answer: bool
    sources_stored: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """What a generation was made from."""

    id: str
    origin: str
    record_hash: str | None
    template_hash: str
    prompt_hash: str | None
    run_id: str
    source: str
    output_hash: str | None


def explain_periods(
    engine: Engine, periods: Sequence[LifePeriod], wanted: Collection[str] | None = None
) -> list[ExplainedPeriod]:
    """Explain periods; these are whole lives, as lives.py returns them, of any number of places.

    With `wanted` only the periods that begin with one of these generations are explained.
    """
    part = [each for each in _with_content_before(periods) if wanted is None or each[0].generation_id in wanted]
    made = _read_made(engine, {each.generation_id for period, before, _n in part for each in (period, before) if each})
    # A generation may have been removed since the periods were read.
    pairs = [
        (period, made[period.generation_id], made.get(before.generation_id) if before else None, failures)
        for period, before, failures in part
        if period.generation_id in made
    ]
    reasons = _Reasons(engine, [(now, before) for _period, now, before, _failures in pairs if before])
    stored = _stored_versions(engine, [(now, before) for _period, now, before, _failures in pairs if before])
    return [
        ExplainedPeriod(
            period=period,
            origin=now.origin,
            before=before.id if before else None,
            before_template=before.template_hash if before else None,
            reasons=reasons.of(now, before),
            failures=failures,
            same_answer=_same_answer(now, before),
            sources_stored=before is not None
            and now.template_hash != before.template_hash
            and {(period.step, now.template_hash), (period.step, before.template_hash)} <= stored,
        )
        for period, now, before, failures in pairs
    ]


def _with_content_before(periods: Iterable[LifePeriod]) -> Iterator[tuple[LifePeriod, LifePeriod | None, int]]:
    for _place, life in groupby(periods, key=lambda period: (period.flow, period.step, period.endpoint)):
        content: LifePeriod | None = None
        failures = 0
        for period in life:
            yield period, content, failures
            failures += 1
            if period.status == SUCCEEDED:
                content, failures = period, 0


def _read_made(engine: Engine, ids: Iterable[str]) -> dict[str, _Made]:
    g = Generation
    source = func.coalesce(g.source_generation_id, g.id)
    columns = (g.id, g.origin, g.record_hash, g.template_hash, g.prompt_hash, g.run_id, source, g.output_hash)
    rows = (row for part in in_parts(sorted(ids)) for row in rows_of(engine, select(*columns).where(g.id.in_(part))))
    return {row[0]: _Made(*row) for row in rows}


def _same_answer(now: _Made, before: _Made | None) -> bool:
    if before is None:
        return False
    return now.source == before.source or (now.output_hash is not None and now.output_hash == before.output_hash)


def _stored_versions(engine: Engine, pairs: Sequence[tuple[_Made, _Made]]) -> set[tuple[str, str]]:
    """Return the names and hashes of the versions of changed templates whose sources are stored."""
    t = StoredTemplate
    changed = {made.template_hash for pair in pairs if pair[0].template_hash != pair[1].template_hash for made in pair}
    return {
        (row.name, row.hash)
        for part in in_parts(sorted(changed))
        for row in rows_of(engine, select(t.name, t.hash).where(t.hash.in_(part)))
    }


class _Reasons:
    """Compares generations with those before, with what all of them need read at once."""

    def __init__(self, engine: Engine, pairs: Sequence[tuple[_Made, _Made]]) -> None:
        self._engine = engine
        self._fields = dict(_changed_fields(engine, pairs))
        self._steps = _changed_parents(engine, pairs)
        alone = [
            (now, before)
            for now, before in pairs
            if now.prompt_hash and before.prompt_hash and now.prompt_hash != before.prompt_hash
        ]
        self._requests = _read_requests(engine, {each.prompt_hash for pair in alone for each in pair})
        self._refreshing = _find_refreshing(engine, {now.run_id for now, _before in pairs})

    def of(self, now: _Made, before: _Made | None) -> tuple[Reason, ...]:
        """Return what differs between a generation and the one before, the most important reason first."""
        if before is None:
            return (Reason("first"),)
        found = []
        if now.record_hash != before.record_hash:
            found.append(Reason("record", self._fields.get((now.id, before.id), ())))
        if now.template_hash != before.template_hash:
            found.append(Reason("template"))
        if (now.id, before.id) in self._steps:
            found.append(Reason("parents", self._steps[now.id, before.id]))
        return tuple(found) or self._of_same_materials(now, before)

    def _of_same_materials(self, now: _Made, before: _Made) -> tuple[Reason, ...]:
        if now.prompt_hash != before.prompt_hash:
            return (self._of_other_prompt(now, before),)
        if now.origin == CACHE:
            return (Reason("reused"),)
        return (Reason("refresh" if now.run_id in self._refreshing else "requested again"),)

    def _of_other_prompt(self, now: _Made, before: _Made) -> Reason:
        """Say which part of the request differs: the model, the schema, a text that a parameter is in."""
        new, old = self._requests.get(now.prompt_hash or ""), self._requests.get(before.prompt_hash or "")
        if new is None or old is None:
            return Reason("settings")
        if new[0] != old[0]:
            return Reason("variant")
        names = dict.fromkeys([*new[1], *old[1]])
        return Reason("settings", tuple(name for name in names if new[1].get(name) != old[1].get(name)))


def _changed_fields(
    engine: Engine, pairs: Sequence[tuple[_Made, _Made]]
) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    changed = [(now, before) for now, before in pairs if now.record_hash != before.record_hash]
    for start in range(0, len(changed), PAIRS):
        part = changed[start : start + PAIRS]
        hashes = sorted({made.record_hash for pair in part for made in pair if made.record_hash})
        stored = select(StoredRecord.hash, StoredRecord.body).where(StoredRecord.hash.in_(hashes))
        bodies = {row.hash: row.body for row in rows_of(engine, stored)}
        for now, before in part:
            new, old = (_fields_of(bodies.get(made.record_hash or "")) for made in (now, before))
            names = dict.fromkeys([*new, *old])
            yield (now.id, before.id), tuple(name for name in names if new.get(name) != old.get(name))


def _fields_of(body: str | None) -> dict[str, bytes]:
    """Return a record's fields as JSON, because Python takes 1, 1.0 and True for equal."""
    fields = orjson.loads(body) if body else {}
    return {name: orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for name, value in fields.items()}


def _changed_parents(engine: Engine, pairs: Sequence[tuple[_Made, _Made]]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the steps whose parents differ, by the ids of the generation and the one before."""
    found: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for start in range(0, len(pairs), PAIRS):
        part = [(now.id, before.id) for now, before in pairs[start : start + PAIRS]]
        for having, lacking in ((0, 1), (1, 0)):
            for row in rows_of(engine, _parents_of_one_only(part, having, lacking)):
                found[row.now, row.before][row.step] = None
    return {pair: tuple(steps) for pair, steps in found.items()}


def _parents_of_one_only(pairs: Sequence[tuple[str, str]], having: int, lacking: int) -> Any:
    compared = union_all(
        *(select(literal(now).label("now"), literal(before).label("before")) for now, before in pairs)
    ).cte("compared")
    own, other, parent = GenerationParent.__table__.alias(), GenerationParent.__table__.alias(), Generation
    sides = (compared.c.now, compared.c.before)
    is_in_other = (
        select(other.c.parent_id)
        .where(other.c.generation_id == sides[lacking], other.c.parent_id == own.c.parent_id)
        .exists()
    )
    return (
        select(compared.c.now, compared.c.before, parent.step)
        .join(own, own.c.generation_id == sides[having])
        .join(parent, parent.id == own.c.parent_id)
        .where(~is_in_other)
        .distinct()
        .order_by(parent.step)
    )


def _read_requests(engine: Engine, hashes: Iterable[str | None]) -> dict[str, tuple[int, Mapping[str, Any]]]:
    """Return the variant and the stored request of prompts; a shared text stands there as its hash."""
    p = StoredPrompt
    rows = (
        row
        for part in in_parts(sorted(each for each in hashes if each))
        for row in rows_of(engine, select(p.hash, p.variant, p.request).where(p.hash.in_(part)))
    )
    return {row.hash: (row.variant, orjson.loads(row.request)) for row in rows}


def _find_refreshing(engine: Engine, run_ids: Iterable[str]) -> set[str]:
    """Return those of the runs that refresh: they generate again whatever the ledger has."""
    run = StoredRun
    rows = (
        row
        for part in in_parts(sorted(run_ids))
        for row in rows_of(engine, select(run.id, run.parameters).where(run.id.in_(part)))
    )
    given = ((row.id, (row.parameters or {}).values()) for row in rows)
    return {
        run_id for run_id, values in given if any(isinstance(each, dict) and each.get("refresh") for each in values)
    }
