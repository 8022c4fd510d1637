"""Read stored generations: a step's in pages, the parents of others, or one with everything it depends on."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Engine, Integer, Select, bindparam, case, func, select, union_all

from db import tables
from db.columns import aliased
from db.readers.confirmations import Confirmed, confirmed_contents
from db.readers.runs import counts_in, find_id, row_of, running, state_of
from db.session import among, in_parts, rows_of
from db.tables import Attempt, Generation, GenerationParent, StandingContent, StoredPrompt, StoredRecord, StoredRun
from db.tables.tried_rows import is_of_trial
from db.words import SUCCEEDED, TRY

_FURTHEST = 10  # how many steps back to look for an output
_SHARED = re.compile(r'{\s*"\$(?:text|json)"\s*:\s*"([^"]+)"\s*}')


@dataclass(frozen=True, slots=True)
class StepGeneration:
    """A succeeded generation as a later step sees it."""

    id: str
    step: str
    record_key: str
    record_hash: str | None
    output: Any
    record: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class InLife:
    """Another generation of the same record in the same step: its place in the record's life."""

    id: str
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Audit:
    """A generation as an auditor needs it; each row is a mapping of its table's columns.

    `source` is the generation that has the text, if this one came from the cache; `attempts` are those of that
    generation. In `run`, the status is the run's state, see runs.py. `request` is the body as it was sent, with the
    shared texts put back. `content` is the record's row of current content. `before` and `after` are the record's
    neighbouring generations in this step, and `other_text` is the newest one before with another text. `more_parents`
    and `more_children` count those that were left out.
    """

    generation: Mapping[str, Any]
    source: Mapping[str, Any] | None
    run: Mapping[str, Any]
    record: str | None
    template: Mapping[str, Any] | None
    request: Any
    attempts: list[Mapping[str, Any]]
    parents: list[StepGeneration]
    children: list[tuple[str, str, str, str]]
    content: Mapping[str, Any] | None = None
    before: InLife | None = None
    after: InLife | None = None
    other_text: InLife | None = None
    more_parents: int = 0
    more_children: int = 0


def read_generations(
    engine: Engine, run_id: str, step: str, *, page_size: int, lease_id: str | None = None
) -> Iterator[list[StepGeneration]]:
    """Yield a step's contents in a run, with outputs and records, in the order of their keys.

    These are the run's succeeded generations, and those of earlier runs that it found unchanged. With a `lease_id` they
    are only those that this helper wrote or found. Each page is its own query. If a query fails because the ledger is
    unavailable, `next` may be called again; a generator would have ended.
    """
    confirmed: Confirmed | None = None
    last: list[StepGeneration] | None = None
    which = {"of_run": run_id, "of_step": step, "of_lease": lease_id, "most": page_size}

    def read_page() -> list[StepGeneration]:
        nonlocal confirmed, last
        if confirmed is None:
            confirmed = confirmed_contents(engine, run_id)
        if last is not None and len(last) < page_size:
            return []
        statement = _page(confirmed, follows=bool(last), of_helper=lease_id is not None)
        rows = rows_of(engine, statement, {**which, "after": last[-1].record_key if last else None})
        last = [_step_generation(row) for row in rows]
        return last

    return iter(read_page, [])


@cache
def _page(contents: Confirmed, *, follows: bool, of_helper: bool) -> Select[Any]:
    """Select a page of a step's contents: the first one, or the one after a key; of one helper or of the whole run."""
    confirmed, most = contents.subquery(), bindparam("most", type_=Integer)
    step: Any = bindparam("of_step")
    of_run = (counts_in(bindparam("of_run")), Generation.step == step, Generation.status == SUCCEEDED)
    written = select(Generation.record_key, Generation.id, Generation.lease_id).where(*of_run)
    unchanged = select(confirmed.c.record_key, confirmed.c.generation_id, confirmed.c.lease_id)
    both = []
    for key, lease, each in (
        (Generation.record_key, Generation.lease_id, written),
        (confirmed.c.record_key, confirmed.c.lease_id, unchanged.where(confirmed.c.step == step)),
    ):
        following = each.where(key > bindparam("after")) if follows else each
        one_helper = following.where(lease == bindparam("of_lease")) if of_helper else following
        both.append(select(one_helper.order_by(key).limit(most).subquery()))
    page = union_all(*both).subquery()
    with_content = _with_content().join(page, page.c.id == Generation.id)
    return with_content.order_by(Generation.record_key).limit(most)


def generations_by_id(engine: Engine, generation_ids: Sequence[str]) -> list[StepGeneration]:
    """Return these generations in the order of their keys; of unknown ids nothing."""
    of_these = among(Generation.id, generation_ids, engine.dialect.name)
    rows = rows_of(engine, _with_content().where(of_these).order_by(Generation.record_key, Generation.id))
    return [_step_generation(row) for row in rows]


def read_parents(engine: Engine, generation_ids: Sequence[str]) -> dict[str, list[StepGeneration]]:
    """Return the parents of each generation, in the order of their keys."""
    parents: dict[str, list[StepGeneration]] = {}
    for part in in_parts(generation_ids):
        statement = (
            _with_content()
            .add_columns(GenerationParent.generation_id)
            .join(GenerationParent, GenerationParent.parent_id == Generation.id)
            .where(GenerationParent.generation_id.in_(part))
            .order_by(Generation.record_key)
        )
        for row in rows_of(engine, statement):
            parents.setdefault(row[-1], []).append(_step_generation(row))
    return parents


def outputs_leading_to(
    ledger: Engine, generations: Sequence[StepGeneration], needs: frozenset[str]
) -> dict[str, dict[str, Any]]:
    """Return, for each generation's id, the outputs on its path by step name: its own output, and those in `needs`.

    If a step has several generations on the path (a fan-in), its output is a list.
    """
    inputs: dict[str, dict[str, Any]] = {found.id: {found.step: found.output} for found in generations}
    roots = {found.id: {found.id} for found in generations}
    for _step in range(_FURTHEST):
        missing = needs - {"record", "params"} - {name for found in inputs.values() for name in found}
        if not missing or not roots:
            break
        above = defaultdict[str, set[str]](set)
        for child, parents in read_parents(ledger, list(roots)).items():
            by_step = defaultdict[str, list[Any]](list)
            for parent in parents:
                by_step[parent.step].append(parent.output)
                above[parent.id] |= roots[child]
            for root in roots[child]:
                for step, outputs in by_step.items():
                    inputs[root].setdefault(step, outputs[0] if len(outputs) == 1 else outputs)
        roots = above
    return inputs


def count_padded_keys(engine: Engine, flow: str, step: str, endpoint: str) -> int:
    """Count the record keys that have content and end in a space."""
    statement = select(func.count()).where(
        StandingContent.flow == flow,
        StandingContent.step == step,
        StandingContent.endpoint == endpoint,
        StandingContent.generation_id.is_not(None),
        StandingContent.record_key.like("% "),
    )
    return int(rows_of(engine, statement)[0][0])


def read_generation(engine: Engine, generation_id: str, most: int | None = None) -> Audit | None:
    """Return all data of one generation, by its id or by a unique beginning or end of it; None if none or several.

    `most` limits the parents and the children; a fan-in has thousands.
    """
    with engine.connect() as connection:
        found = find_id(connection, Generation.id, generation_id)
        row = None if found is None else row_of(connection, Generation, Generation.id == found)
        if row is None:
            return None
        source_id = row["source_generation_id"]
        body = connection.scalar(select(StoredPrompt.request).where(StoredPrompt.hash == row["prompt_hash"]))
        attempts = select(Attempt.__table__).where(Attempt.generation_id == (source_id or row["id"]))
        children = (
            select(Generation.id, Generation.step, Generation.record_key, Generation.status)
            .join(GenerationParent, GenerationParent.generation_id == Generation.id)
            .where(GenerationParent.parent_id == row["id"])
            .order_by(Generation.id)
        )
        template = tables.StoredTemplate
        run = row_of(connection, StoredRun, StoredRun.id == row["run_id"]) or {}
        of_record = [column == row[column.name] for column in StandingContent.__table__.primary_key]
        near = _neighbours(connection, row)
        audit = Audit(
            generation=row,
            source=row_of(connection, Generation, Generation.id == source_id),
            run=run | {"status": state_of(run["id"], run["status"], running(engine))},
            record=connection.scalar(select(StoredRecord.body).where(StoredRecord.hash == row["record_hash"])),
            template=row_of(connection, template, template.hash == row["template_hash"], template.name == row["step"]),
            request=read_request(engine, body) if body else None,
            attempts=[dict(attempt) for attempt in connection.execute(attempts.order_by(Attempt.ordinal)).mappings()],
            parents=_parents_of(engine, row["id"], most),
            children=[(child[0], child[1], child[2], child[3]) for child in connection.execute(children.limit(most))],
            content=row_of(connection, StandingContent, *of_record),
            before=near["before"],
            after=near["after"],
            other_text=near["other_text"],
        )
        if most is None:
            return audit
        return replace(
            audit,
            more_parents=_left_out(connection, GenerationParent.generation_id == row["id"], audit.parents),
            more_children=_left_out(connection, GenerationParent.parent_id == row["id"], audit.children),
        )


def _parents_of(engine: Engine, generation_id: str, most: int | None) -> list[StepGeneration]:
    of_child = select(GenerationParent.parent_id).where(GenerationParent.generation_id == generation_id)
    ids = select(of_child.order_by(GenerationParent.parent_id).limit(most).subquery().c.parent_id)
    rows = rows_of(engine, _with_content().where(Generation.id.in_(ids)).order_by(Generation.record_key))
    return [_step_generation(row) for row in rows]


def _left_out(connection: Connection, which: ColumnElement[bool], listed: Sequence[object]) -> int:
    counted = connection.scalar(select(func.count()).select_from(GenerationParent).where(which))
    return int(counted or 0) - len(listed)


def _neighbours(connection: Connection, row: Mapping[str, Any]) -> dict[str, InLife | None]:
    """Read a generation's place among those of its record and step, which a later run may have replaced too.

    No trial stands next to a run's generation, but next to a trial's does.
    """
    g = Generation
    text_of = func.coalesce(g.source_generation_id, g.id)
    own_text = row["source_generation_id"] or row["id"]
    same = select(g.id, g.status, g.created_at).where(
        *(getattr(g, name) == row[name] for name in ("flow", "step", "endpoint", "record_key"))
    )
    if connection.scalar(select(StoredRun.trigger).where(StoredRun.id == row["run_id"])) != TRY:
        same = same.where(~is_of_trial(g.run_id))
    found = {
        "before": same.where(g.id < row["id"]).order_by(g.id.desc()),
        "after": same.where(g.id > row["id"]).order_by(g.id),
        "other_text": same.where(g.id < row["id"], g.status == SUCCEEDED, text_of != own_text).order_by(g.id.desc()),
    }
    rows = {name: connection.execute(statement.limit(1)).first() for name, statement in found.items()}
    return {name: None if each is None else InLife(each[0], each[1], each[2]) for name, each in rows.items()}


def read_request(engine: Engine, body: str) -> Any:
    """Put the shared texts back into a stored request."""
    request = orjson.loads(body)
    # Only real references match: inside a text of the request, quotes are escaped.
    hashes = sorted(set(_SHARED.findall(body)))
    found = rows_of(engine, select(tables.SharedText).where(tables.SharedText.hash.in_(hashes)))
    return _filled(request, {text.hash: text.body for text in found})


def _filled(node: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"$text"}:
            return texts[node["$text"]]
        if set(node) == {"$json"}:
            return orjson.loads(texts[node["$json"]])
        return {name: _filled(item, texts) for name, item in node.items()}
    return [_filled(item, texts) for item in node] if isinstance(node, list) else node


@cache
def _with_content() -> Select[Any]:
    source = aliased(Generation)
    # A cached row has no text; its source has it.
    output = case((Generation.source_generation_id.is_(None), Generation.output), else_=source.output)
    return (
        select(Generation.id, Generation.step, Generation.record_key, Generation.record_hash, output, StoredRecord.body)
        .outerjoin(source, source.id == Generation.source_generation_id)
        .outerjoin(StoredRecord, StoredRecord.hash == Generation.record_hash)
    )


def _step_generation(row: Sequence[Any]) -> StepGeneration:
    body = row[5]
    return StepGeneration(row[0], row[1], row[2], row[3], row[4], orjson.loads(body) if body else None)
