"""History: what the ledger says happened, read back for the look-up, for summaries and for people.

Every figure shown anywhere comes from here, and so from the attempts and generations themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Engine, Row, Select, and_, case, func, or_, select
from sqlalchemy.orm import aliased

from db.ledger.tables import (
    Attempt,
    Generation,
    GenerationParent,
    SharedText,
    StoredPrompt,
    StoredRecord,
    StoredRun,
    StoredTemplate,
)
from db.words import ASKED, BAD_OUTCOMES, PERHAPS_BILLED, UNSENT, Status

_CACHED = (Attempt.cache_creation_5m_tokens, Attempt.cache_creation_1h_tokens, Attempt.cache_read_tokens)
SHORTEST_ID = 6  # characters of an id that are taken for a part of one
IN_AT_ONCE = 500  # ids in one IN (...): below every database's limit


@dataclass(frozen=True, slots=True)
class PromptHistory:
    """What is known of one prompt: its newest succeeded answer, or how often it went badly.

    `wrong_model` is the model that answered last, where it was another than was asked.
    """

    generation_id: str | None = None
    output: Any = None
    output_hash: str | None = None
    record_hash: str | None = None
    bad_outcomes: int = 0
    last_bad: str | None = None
    wrong_model: str | None = None


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
class Usage:
    """What requests used and cost; `unpriced` of them had no known price, so cost_usd lacks them.

    `input_tokens` are all that went in, those written to and read from the prompt cache included. `likely_usd` is what
    those that were perhaps billed were expected to cost; None where that is not known of any.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0
    cost_usd: Decimal | None = None
    unpriced: int = 0
    perhaps_billed: int = 0
    rate_limited: int = 0
    likely_usd: Decimal | None = Decimal(0)


@dataclass(frozen=True, slots=True)
class PromptCacheUse:
    """What requests that are priced alike wrote to the prompt cache and read from it, in tokens.

    They share model, tier, place, speed, day (UTC) and, for prices by prompt length, `prompt_tokens`: all that goes
    into one request, rounded up to a thousand. `writes` and `reads` count the requests.
    """

    model: str
    service_tier: str | None
    inference_geo: str | None
    speed: str | None
    day: date
    prompt_tokens: int
    written_5m: int
    written_1h: int
    read: int
    writes: int
    reads: int


@dataclass(frozen=True, slots=True)
class StepCount:
    """How many generations of a step ended how; `cached` ones are those of origin cache that succeeded."""

    step: str
    status: str
    origin: str
    count: int


def look_up(engine: Engine, hashes: Sequence[str], *, since: datetime | None = None) -> dict[str, PromptHistory]:
    """Look a page of prompts up in one query; prompts never answered, or not `since` then, are not in the result."""
    found: dict[str, PromptHistory] = {}
    generation = Generation
    by_ordinal = select(Attempt.model).where(Attempt.generation_id == generation.id).order_by(Attempt.ordinal.desc())
    answered_by = by_ordinal.limit(1).scalar_subquery()
    for part in _parts(hashes):
        statement = (
            select(
                generation.prompt_hash,
                generation.id,
                generation.status,
                generation.output,
                generation.output_hash,
                generation.record_hash,
                generation.error_kind,
                case((generation.error_kind == "wrong_model", answered_by)),
            )
            .where(
                generation.prompt_hash.in_(part),
                generation.origin.in_(ASKED),
                or_(generation.status == "succeeded", _went_badly()),
            )
            .order_by(generation.id)
        )
        if since is not None:
            statement = statement.where(generation.created_at >= since)
        with engine.connect() as connection:
            for prompt_hash, generation_id, status, output, *hashes_of, kind, model in connection.execute(statement):
                before = found.get(prompt_hash, PromptHistory())
                if status == "succeeded":
                    found[prompt_hash] = PromptHistory(generation_id, output, *hashes_of)
                elif before.generation_id is None:
                    last = f"failed ({kind})" if status == "failed" else status
                    count = before.bad_outcomes + 1
                    found[prompt_hash] = PromptHistory(bad_outcomes=count, last_bad=last, wrong_model=model)
    return found


def shards_of(engine: Engine, run_id: str) -> list[str]:
    """Return the runs that worked for this one, which was spread over them, while it went on.

    Also those that an earlier run of the same Prefect flow run started, and that this one found at work.
    """
    me = aliased(StoredRun)
    same = aliased(StoredRun)
    statement = (
        select(StoredRun.id)
        .join(same, same.id == StoredRun.parent_run_id)
        .join(me, or_(me.id == same.id, me.prefect_flow_run_id == same.prefect_flow_run_id))
        .where(
            me.id == run_id,
            or_(StoredRun.ended_at.is_(None), StoredRun.ended_at >= me.started_at),
            or_(me.ended_at.is_(None), StoredRun.started_at <= me.ended_at),
        )
        .order_by(StoredRun.id)
    )
    with engine.connect() as connection:
        return list(connection.scalars(statement))


def statuses_of_flow_runs(engine: Engine, prefect_flow_run_ids: Sequence[str]) -> dict[str, str]:
    """Return the status of the newest run of each Prefect flow run that has one."""
    statement = (
        select(StoredRun.prefect_flow_run_id, StoredRun.status)
        .where(StoredRun.prefect_flow_run_id.in_(prefect_flow_run_ids))
        .order_by(StoredRun.id)
    )
    with engine.connect() as connection:
        return {str(flow_run): status for flow_run, status in connection.execute(statement)}


@dataclass(frozen=True, slots=True)
class BadOutcome:
    """How a prompt ended that brought no content: the generation that says so."""

    generation_id: str
    status: Status
    kind: str | None
    message: str | None


def bad_outcomes_of(engine: Engine, run_ids: Sequence[str], hashes: Sequence[str]) -> dict[str, BadOutcome]:
    """Return the prompts that these runs asked, perhaps paid for and got no content for; the newest of each."""
    found: dict[str, BadOutcome] = {}
    for part in _parts(hashes):
        statement = (
            select(
                Generation.prompt_hash,
                Generation.id,
                Generation.status,
                Generation.error_kind,
                Generation.error_message,
            )
            .where(
                Generation.prompt_hash.in_(part),
                Generation.run_id.in_(run_ids),
                Generation.origin.in_(ASKED),
                _went_badly(),
            )
            .order_by(Generation.id)
        )
        with engine.connect() as connection:
            found |= {str(row[0]): BadOutcome(row[1], row[2], row[3], row[4]) for row in connection.execute(statement)}
    return found


def read_generations(engine: Engine, run_id: str, step: str, *, page_size: int) -> Iterator[list[StepGeneration]]:
    """Yield a step's succeeded generations of a run, with outputs and records, in the order of their keys.

    Each page is a query of its own. Where one fails, as the ledger is unavailable, `next` may be called again: a
    generator would be at its end by then.
    """
    return _GenerationPages(engine, run_id, step, page_size)


class _GenerationPages(Iterator[list[StepGeneration]]):
    def __init__(self, engine: Engine, run_id: str, step: str, page_size: int) -> None:
        self._engine = engine
        self._page_size = page_size
        self._statement = (
            _with_content()
            .where(Generation.run_id == run_id, Generation.step == step, Generation.status == "succeeded")
            .order_by(Generation.record_key)
            .limit(page_size)
        )
        self._after: str | None = None
        self._ended = False

    def __next__(self) -> list[StepGeneration]:
        if self._ended:
            raise StopIteration
        statement = self._statement
        if self._after is not None:
            statement = statement.where(Generation.record_key > self._after)
        with self._engine.connect() as connection:
            page = [_step_generation(row) for row in connection.execute(statement)]
        self._ended = len(page) < self._page_size
        if not page:
            raise StopIteration
        self._after = page[-1].record_key
        return page


def read_parents(engine: Engine, generation_ids: Sequence[str]) -> dict[str, list[StepGeneration]]:
    """Return, for each generation, those it was made from, in the order of their keys."""
    parents: dict[str, list[StepGeneration]] = {}
    for part in _parts(generation_ids):
        statement = (
            _with_content()
            .add_columns(GenerationParent.generation_id)
            .join(GenerationParent, GenerationParent.parent_id == Generation.id)
            .where(GenerationParent.generation_id.in_(part))
            .order_by(Generation.record_key)
        )
        with engine.connect() as connection:
            for row in connection.execute(statement):
                parents.setdefault(row[-1], []).append(_step_generation(row))
    return parents


def usage(engine: Engine, run_id: str, *, step: str | None = None) -> Usage:
    """Add up what a run's attempts and those of its shards used and cost, for one step or for all."""
    attempt = Attempt
    whole = [run_id, *shards_of(engine, run_id)]
    written = func.coalesce(attempt.cache_creation_5m_tokens, 0) + func.coalesce(attempt.cache_creation_1h_tokens, 0)
    read = func.coalesce(attempt.cache_read_tokens, 0)
    error = func.coalesce(attempt.error_type, "")
    # An endpoint need not tell what an answer used.
    answered = attempt.input_tokens.is_not(None) | attempt.output_text.is_not(None)
    perhaps = error.in_(PERHAPS_BILLED)
    statement = select(
        _sum(case((error.in_(UNSENT), 0), else_=1)),
        _sum(func.coalesce(attempt.input_tokens, 0) + written + read),
        _sum(func.coalesce(attempt.output_tokens, 0)),
        _sum(written),
        _sum(read),
        func.sum(attempt.cost_usd, type_=Attempt.__table__.c.cost_usd.type),
        func.sum(case((perhaps, attempt.likely_cost_usd)), type_=Attempt.__table__.c.likely_cost_usd.type),
        _sum(case((answered & attempt.cost_usd.is_(None), 1), else_=0)),
        _sum(case((perhaps, 1), else_=0)),
        _sum(case((attempt.http_status == 429, 1), else_=0)),
    ).where(attempt.run_id.in_(whole))
    if step is not None:
        of_step = select(Generation.id).where(Generation.run_id.in_(whole), Generation.step == step)
        statement = statement.where(attempt.generation_id.in_(of_step))
    with engine.connect() as connection:
        *counts, cost, likely, unpriced, lost, limited = connection.execute(statement).one()
    requests, tokens_in, tokens_out, made, reused = (int(count) for count in counts)
    if cost is None and unpriced == 0:
        cost = Decimal(0)
    if likely is None and lost == 0:
        likely = Decimal(0)
    return Usage(requests, tokens_in, tokens_out, made, reused, cost, int(unpriced), int(lost), int(limited), likely)


def prompt_cache_use(engine: Engine, run_id: str) -> list[PromptCacheUse]:
    """Say what a run and its shards wrote to the prompt cache and read from it, apart by what sets the price.

    Requests that did neither are left out.
    """
    attempt = Attempt
    day = func.date(attempt.ended_at)
    written_5m, written_1h, read = (
        func.coalesce(column, 0)
        for column in (attempt.cache_creation_5m_tokens, attempt.cache_creation_1h_tokens, attempt.cache_read_tokens)
    )
    written = written_5m + written_1h
    # Named in a query of its own: PostgreSQL does not see that two expressions with bound values are the same.
    each = (
        select(
            attempt.model,
            attempt.service_tier,
            attempt.inference_geo,
            attempt.speed,
            day.label("day"),
            # Price lists change at whole thousands, so that none lies within one group.
            ((func.coalesce(attempt.input_tokens, 0) + written + read + 999) // 1000).label("thousands"),
            written_5m.label("written_5m"),
            written_1h.label("written_1h"),
            read.label("read"),
            case((written > 0, 1), else_=0).label("writes"),
            case((read > 0, 1), else_=0).label("reads"),
        )
        .where(attempt.run_id.in_([run_id, *shards_of(engine, run_id)]), attempt.model.is_not(None))
        .where(written + read > 0)
        .subquery()
    )
    alike, summed = list(each.c)[:6], list(each.c)[6:]
    statement = select(*alike, *(_sum(column) for column in summed)).group_by(*alike)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(statement)]
    # SQLite has no dates: it says one as text.
    return [
        PromptCacheUse(model, tier, geo, speed, date.fromisoformat(str(when)), int(thousands) * 1000, *map(int, counts))
        for model, tier, geo, speed, when, thousands, *counts in rows
    ]


def cost_reused(engine: Engine, run_id: str) -> Decimal | None:
    """Add up what a run's cached generations cost when they were asked for; None where no price is known of any.

    What its own shards asked for is no saving.
    """
    cost = Attempt.__table__.c.cost_usd
    shards = shards_of(engine, run_id)
    statement = (
        select(func.sum(cost, type_=cost.type))
        .select_from(Generation)
        .join(Attempt, Attempt.generation_id == Generation.source_generation_id)
        .where(Generation.run_id == run_id, Generation.origin == "cache", Generation.status == "succeeded")
    )
    if shards:
        statement = statement.where(Attempt.run_id.not_in(shards))
    with engine.connect() as connection:
        total: Decimal | None = connection.scalar(statement)
    return total


def count_generations(engine: Engine, run_id: str) -> list[StepCount]:
    """Count a run's generations by step, status and origin, in the order in which the steps began.

    What one of its shards asked for counts as the run's own, live as it was there.
    """
    shards = shards_of(engine, run_id)
    if shards:
        return _count_with_shards(engine, run_id, shards)
    statement = (
        select(Generation.step, Generation.status, Generation.origin, func.count(), func.min(Generation.id))
        .where(Generation.run_id == run_id)
        .group_by(Generation.step, Generation.status, Generation.origin)
        .order_by(func.min(Generation.id))
    )
    with engine.connect() as connection:
        return [StepCount(step, status, origin, n) for step, status, origin, n, _ in connection.execute(statement)]


def count_padded_keys(engine: Engine, flow: str, step: str, endpoint: str) -> int:
    """Count the record keys with content that end in a blank."""
    statement = select(func.count(func.distinct(Generation.record_key))).where(
        Generation.flow == flow,
        Generation.step == step,
        Generation.endpoint == endpoint,
        Generation.status == "succeeded",
        Generation.record_key.like("% "),
    )
    with engine.connect() as connection:
        return int(connection.execute(statement).scalar_one())


def _count_with_shards(engine: Engine, run_id: str, shards: Sequence[str]) -> list[StepCount]:
    source = aliased(Generation)
    by_shard = case((source.run_id.in_(shards), 1), else_=0)
    statement = (
        select(
            Generation.step,
            Generation.status,
            Generation.origin,
            func.count(),
            # A prompt that stands twice was asked once.
            func.count(case((by_shard == 1, Generation.source_generation_id)).distinct()),
            func.min(Generation.id),
        )
        .outerjoin(source, source.id == Generation.source_generation_id)
        .where(Generation.run_id == run_id)
        .group_by(Generation.step, Generation.status, Generation.origin)
        .order_by(func.min(Generation.id))
    )
    counts: dict[tuple[str, str, str], int] = {}
    with engine.connect() as connection:
        for step, status, origin, count, asked_by_shards, _first in connection.execute(statement):
            for real, number in (("live", asked_by_shards), (origin, count - asked_by_shards)):
                if number:
                    counts[step, status, real] = counts.get((step, status, real), 0) + number
    return [StepCount(*line, count) for line, count in counts.items()]


def worst(engine: Engine, run_id: str, limit: int = 10) -> list[Row[Any]]:
    """List a run's generations without content: id, step, record_key, status, error_kind, error_message."""
    statement = (
        select(
            Generation.id,
            Generation.step,
            Generation.record_key,
            Generation.status,
            Generation.error_kind,
            Generation.error_message,
        )
        .where(Generation.run_id == run_id, Generation.status != "succeeded")
        .order_by(Generation.id)
        .limit(limit)
    )
    with engine.connect() as connection:
        return list(connection.execute(statement))


def samples(engine: Engine, run_id: str, step: str, limit: int) -> list[StepGeneration]:
    """Return a few of a step's succeeded generations, the first by key."""
    return next(read_generations(engine, run_id, step, page_size=limit), [])


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as a list of runs shows it."""

    id: str
    flow: str
    endpoint: str
    trigger: str
    status: str
    started_at: datetime
    ended_at: datetime | None
    generations: int
    succeeded: int
    cached: int
    usage: Usage


def list_runs(engine: Engine, *, flow: str | None = None, limit: int = 20) -> list[RunLine]:
    """List runs, the newest first; a shard stands in the figures of its run, not in a line of its own."""
    statement = select(StoredRun).where(StoredRun.parent_run_id.is_(None)).order_by(StoredRun.id.desc()).limit(limit)
    if flow is not None:
        statement = statement.where(StoredRun.flow == flow)
    with engine.connect() as connection:
        runs = list(connection.execute(statement))
    return [_run_line(engine, run) for run in runs]


def find_run(engine: Engine, run_id: str) -> RunLine | None:
    """Return the run with this id, or with the only id that ends or begins so; None where there is none or several."""
    with engine.connect() as connection:
        rows = list(connection.execute(select(StoredRun).where(_matches(StoredRun.id, run_id)).limit(2)))
    return _run_line(engine, rows[0]) if len(rows) == 1 else None


def read_run(engine: Engine, run_id: str) -> Mapping[str, Any] | None:
    """Return a run's row, by its whole id: all columns of models.Run."""
    with engine.connect() as connection:
        return _one(connection.execute(select(StoredRun.__table__).where(StoredRun.id == run_id)))


@dataclass(frozen=True, slots=True)
class Audit:
    """A generation as an auditor needs it; rows are mappings of the columns in models.py.

    `generation` is the row asked for, `source` the one that has the text where it came from the cache. `request` is
    the body as it was sent, shared texts put back; `attempts` are those of the generation that has the text.
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


def read_generation(engine: Engine, generation_id: str) -> Audit | None:
    """Return all that is known of one generation, by its id or by a unique beginning or ending of it."""
    table = Generation.__table__
    with engine.connect() as connection:
        rows = list(connection.execute(select(table).where(_matches(table.c.id, generation_id)).limit(2)).mappings())
        if len(rows) != 1:
            return None
        row = dict(rows[0])
        source = _one(connection.execute(select(table).where(table.c.id == row["source_generation_id"])))
        asked_by = row["source_generation_id"] or row["id"]
        run = _one(connection.execute(select(StoredRun.__table__).where(StoredRun.id == row["run_id"])))
        record = connection.scalar(select(StoredRecord.body).where(StoredRecord.hash == row["record_hash"]))
        template = _one(
            connection.execute(
                select(StoredTemplate.__table__).where(
                    StoredTemplate.hash == row["template_hash"], StoredTemplate.name == row["step"]
                )
            )
        )
        body = connection.scalar(select(StoredPrompt.request).where(StoredPrompt.hash == row["prompt_hash"]))
        attempts = connection.execute(
            select(Attempt.__table__).where(Attempt.generation_id == asked_by).order_by(Attempt.ordinal)
        ).mappings()
        children = connection.execute(
            select(Generation.id, Generation.step, Generation.record_key, Generation.status)
            .join(GenerationParent, GenerationParent.generation_id == Generation.id)
            .where(GenerationParent.parent_id == row["id"])
            .order_by(Generation.id)
        )
        return Audit(
            generation=row,
            source=source,
            run=run or {},
            record=record,
            template=template,
            request=read_request(engine, body) if body else None,
            attempts=[dict(attempt) for attempt in attempts],
            parents=read_parents(engine, [row["id"]]).get(row["id"], []),
            children=[(child[0], child[1], child[2], child[3]) for child in children],
        )


def read_request(engine: Engine, body: str) -> Any:
    """Put the shared texts back into a stored request."""
    request = orjson.loads(body)
    hashes = sorted(_text_hashes(request))
    with engine.connect() as connection:
        texts: dict[str, str] = {
            row[0]: row[1]
            for row in connection.execute(select(SharedText.hash, SharedText.body).where(SharedText.hash.in_(hashes)))
        }
    return _filled(request, texts)


def _text_hashes(node: Any) -> set[str]:
    if isinstance(node, dict):
        if set(node) in ({"$text"}, {"$json"}):
            return set(node.values())
        return set().union(*(_text_hashes(item) for item in node.values()))
    return set().union(*(_text_hashes(item) for item in node)) if isinstance(node, list) else set()


def _filled(node: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"$text"}:
            return texts[node["$text"]]
        if set(node) == {"$json"}:
            return orjson.loads(texts[node["$json"]])
        return {name: _filled(item, texts) for name, item in node.items()}
    return [_filled(item, texts) for item in node] if isinstance(node, list) else node


def _with_content() -> Select[Any]:
    source = aliased(Generation)
    return (
        select(
            Generation.id,
            Generation.step,
            Generation.record_key,
            Generation.record_hash,
            # A cached row has no text of its own; the one that it points at has.
            case((Generation.source_generation_id.is_(None), Generation.output), else_=source.output),
            StoredRecord.body,
        )
        .outerjoin(source, source.id == Generation.source_generation_id)
        .outerjoin(StoredRecord, StoredRecord.hash == Generation.record_hash)
    )


def _step_generation(row: Sequence[Any]) -> StepGeneration:
    body = row[5]
    return StepGeneration(row[0], row[1], row[2], row[3], row[4], orjson.loads(body) if body else None)


def _run_line(engine: Engine, run: Row[Any]) -> RunLine:
    counts = count_generations(engine, run.id)
    return RunLine(
        id=run.id,
        flow=run.flow,
        endpoint=run.endpoint,
        trigger=run.trigger,
        status=run.status,
        started_at=run.started_at,
        ended_at=run.ended_at,
        generations=sum(line.count for line in counts),
        succeeded=sum(line.count for line in counts if line.status == "succeeded" and line.origin != "cache"),
        cached=sum(line.count for line in counts if line.status == "succeeded" and line.origin == "cache"),
        usage=usage(engine, run.id),
    )


def _went_badly() -> ColumnElement[bool]:
    # By the attempts: how a failure ended says nothing of what was paid for before its last request.
    # What a crash left open has no generation, and does not count: it says nothing of the one prompt among hundreds.
    billed = or_(Attempt.error_type.is_(None), Attempt.error_type.in_(PERHAPS_BILLED))
    paid = select(Attempt.id).where(Attempt.generation_id == Generation.id, billed).exists()
    return or_(Generation.status.in_(BAD_OUTCOMES), and_(Generation.status == "failed", paid))


def _matches(column: Any, text: str) -> ColumnElement[bool]:
    # An id's end tells runs of one day apart, its beginning is the time: people copy either.
    plain = "".join(character for character in text.lower() if character.isalnum() or character == "-")
    if len(plain) < SHORTEST_ID:
        return or_(column == text)
    return or_(column == text, column.like(f"%{plain}"), column.like(f"{plain}%"))


def _sum(expression: Any) -> Any:
    return func.coalesce(func.sum(expression), 0)


def _parts(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), IN_AT_ONCE):
        yield items[start : start + IN_AT_ONCE]


def _one(result: Any) -> dict[str, Any] | None:
    row = result.mappings().first()
    return dict(row) if row is not None else None


def mean_tokens(engine: Engine, flow: str, step: str, *, newest: int = 2000) -> tuple[float, float] | None:
    """Return what a step's answers had in tokens on average, in and out, among the newest attempts; None: no answer."""
    columns = (Attempt.generation_id, Attempt.input_tokens, Attempt.output_tokens, *_CACHED)
    recent = select(*columns).order_by(Attempt.id.desc()).limit(newest).subquery()
    tokens_in = recent.c.input_tokens + sum(func.coalesce(recent.c[column.key], 0) for column in _CACHED)
    statement = (
        select(func.avg(tokens_in), func.avg(recent.c.output_tokens))
        .join(Generation, Generation.id == recent.c.generation_id)
        .where(Generation.flow == flow, Generation.step == step, recent.c.output_tokens.is_not(None))
    )
    with engine.connect() as connection:
        mean_in, mean_out = connection.execute(statement).one()
    return None if mean_out is None else (float(mean_in or 0), float(mean_out))
