"""Compare two versions of a template by the records that both have answered.

The keys come from the runs of the version with fewer generations, through an index that is not wider than they are. For
each key the newest generation of each version is read then. A page reads a bounded number of keys: if few records have
both, it ends early and the next page goes on from there.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import orjson
from sqlalchemy import Engine, func, select

from db.columns import aliased
from db.readers.audit.filters import FilterError, check_text, find_template
from db.rollups.marks import unmarked
from db.session import among, in_parts, rows_of
from db.tables import Generation, OutcomeRollup, StoredPrompt, StoredRun

PAIRS_A_PAGE = 20
KEYS_A_PAGE = 2_000
"""The number of keys that a page reads at most."""
_KEYS_AT_ONCE = 200
_Place = tuple[str, str, str]
"""A flow, an endpoint and a record key."""


@dataclass(frozen=True, slots=True)
class VersionAnswer:
    """The newest generation of a record under one version, a trial's among them; `trigger` started its run.

    `output` is its answer, None if it has no content.
    """

    generation_id: str
    created_at: datetime
    status: str
    origin: str
    trigger: str
    model: str | None
    record_hash: str | None
    output: Any
    error_kind: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class ComparedRecord:
    """A record of a flow and an endpoint under two versions."""

    flow: str
    endpoint: str
    record_key: str
    a: VersionAnswer
    b: VersionAnswer

    @property
    def same_record(self) -> bool:
        """Whether both versions were given the same record; else a difference may come from the record."""
        return self.a.record_hash == self.b.record_hash

    @property
    def same_answer(self) -> bool:
        """Whether both answers are equal."""
        return (self.a.status, self.a.output) == (self.b.status, self.b.output)


@dataclass(frozen=True, slots=True)
class ComparedPage:
    """A page of compared records in the order of flow, endpoint and key; `after` is where the next page begins.

    A page can be short, or even empty, and still have a next one: `keys_read` says how many keys it looked at.
    """

    name: str
    a: str
    b: str
    records: list[ComparedRecord]
    keys_read: int
    after: str | None


def compared_versions(
    engine: Engine, name: str, a: str, b: str, after: str | None = None, limit: int = PAIRS_A_PAGE
) -> ComparedPage:
    """Compare the records that have a generation of both versions of a template, in pages.

    `a` and `b` are hashes or their beginnings; FilterError if one does not exist, or if `after` is no end of a page.
    """
    first, second = find_template(engine, a, name), find_template(engine, b, name)
    if first == second:
        raise FilterError("A version can't be compared with itself. Choose two versions.")
    keys = _keys(engine, name, (first, second), None if after is None else _read_end(after))
    found: list[tuple[_Place, str, str]] = []
    read = 0
    while read < min(len(keys), KEYS_A_PAGE) and len(found) < limit:
        part = keys[read : min(read + _KEYS_AT_ONCE, KEYS_A_PAGE)]
        pairs = _pairs(engine, name, first, second, part)
        found += [(place, *pairs[place]) for place in part if place in pairs]
        read += len(part)
    found = found[:limit]
    if len(found) == limit:
        read = keys.index(found[-1][0]) + 1
    answers = _answers(engine, [each for _place, *ids in found for each in ids])
    # A row that `compact` removed between the two statements leaves its record out.
    records = [
        ComparedRecord(*place, answers[of_a], answers[of_b])
        for place, of_a, of_b in found
        if of_a in answers and of_b in answers
    ]
    end = orjson.dumps(keys[read - 1]).decode() if read < len(keys) else None
    return ComparedPage(name, first, second, records, read, end)


def _read_end(after: str) -> _Place:
    try:
        flow, endpoint, key = orjson.loads(after)
    except (orjson.JSONDecodeError, TypeError, ValueError):
        raise FilterError(f"{after!r} is not the end of a page of this list. Begin with its first page.") from None
    for part in (flow, endpoint, key):
        check_text("after", str(part))
    return str(flow), str(endpoint), str(key)


def _keys(engine: Engine, name: str, versions: Sequence[str], after: _Place | None) -> list[_Place]:
    """List the records that the version with fewer generations may have, up to one more than a page reads."""
    g, r, dialect = Generation, StoredRun, engine.dialect.name
    run_ids = _runs_of_rarer(engine, name, versions)
    runs = defaultdict[tuple[str, str], list[str]](list)
    for row in rows_of(engine, select(r.flow, r.endpoint, r.id).where(among(r.id, run_ids, dialect))):
        runs[row.flow, row.endpoint].append(row.id)
    found: list[_Place] = []
    # One statement for each flow and endpoint: sorting by all three takes PostgreSQL four times as long.
    for flow, endpoint in sorted(each for each in runs if after is None or each >= after[:2]):
        its_runs = among(g.run_id, runs[flow, endpoint], dialect)
        keys = select(g.record_key).distinct().where(its_runs, g.step == name).order_by(g.record_key)
        if after is not None and (flow, endpoint) == after[:2]:
            keys = keys.where(g.record_key > after[2])
        rows = rows_of(engine, keys.limit(KEYS_A_PAGE + 1 - len(found)))
        found += [(flow, endpoint, row.record_key) for row in rows]
        if len(found) > KEYS_A_PAGE:
            break
    return found


def _runs_of_rarer(engine: Engine, name: str, versions: Sequence[str]) -> list[str]:
    """Return the runs of the version that has fewer generations, and all runs that are not added up."""
    o = OutcomeRollup
    number = func.sum(o.generations + o.replaced).label("number")
    statement = select(o.template_hash, o.run_id, number).where(o.step == name, o.template_hash.in_(versions))
    rows = rows_of(engine, statement.group_by(o.template_hash, o.run_id))
    numbers = {version: sum(row.number for row in rows if row.template_hash == version) for version in versions}
    rarer = min(versions, key=lambda version: numbers[version])
    return [row.run_id for row in rows if row.template_hash == rarer] + [row.id for row in rows_of(engine, unmarked())]


def _pairs(engine: Engine, name: str, a: str, b: str, places: Sequence[_Place]) -> dict[_Place, tuple[str, str]]:
    """Return the newest generation of both versions for the records that have both."""
    g = Generation
    found: dict[_Place, tuple[str, str]] = {}
    for (flow, endpoint), group in groupby(places, key=lambda place: place[:2]):
        keys = [key for _flow, _endpoint, key in group]
        of_records = (g.flow == flow, g.step == name, g.endpoint == endpoint, g.replaced_by == "")
        newest = (
            select(g.record_key, g.template_hash, func.max(g.id))
            .where(*of_records, among(g.record_key, keys, engine.dialect.name), g.template_hash.in_((a, b)))
            .group_by(g.record_key, g.template_hash)
        )
        ids = {(key, template): each for key, template, each in rows_of(engine, newest)}
        both = [key for key in keys if (key, a) in ids and (key, b) in ids]
        found |= {(flow, endpoint, key): (ids[key, a], ids[key, b]) for key in both}
    return found


def _answers(engine: Engine, ids: Sequence[str]) -> dict[str, VersionAnswer]:
    return {
        row.generation_id: VersionAnswer(**row._asdict())
        for part in in_parts(ids)
        for row in rows_of(engine, _ANSWERS.where(Generation.id.in_(part)))
    }


_source = aliased(Generation)
_ANSWERS = (
    select(
        Generation.id.label("generation_id"),
        Generation.created_at,
        Generation.status,
        Generation.origin,
        StoredRun.trigger,
        StoredPrompt.model,
        Generation.record_hash,
        func.coalesce(Generation.output, _source.output).label("output"),
        Generation.error_kind,
        Generation.error_message,
    )
    .join(StoredRun, StoredRun.id == Generation.run_id)
    .outerjoin(StoredPrompt, StoredPrompt.hash == Generation.prompt_hash)
    .outerjoin(_source, _source.id == Generation.source_generation_id)
)
