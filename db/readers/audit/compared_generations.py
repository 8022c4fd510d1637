"""Read what two generations, or two versions of a template, are compared by: an answer, a prompt, a record, sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson
from sqlalchemy import Engine, func, select

from db.readers.audit.template_versions import only_tried
from db.readers.runs import find_id
from db.readers.stored_generations import read_request
from db.session import rows_of
from db.tables import Attempt, Generation, StoredPrompt, StoredRecord, StoredRun, StoredTemplate
from db.tables.tried_rows import is_of_trial
from db.words import SUCCEEDED

Compared = Literal["answer", "prompt", "record"]


@dataclass(frozen=True, slots=True)
class ComparedGeneration:
    """One of two generations that are compared. `value` is its answer, prompt or record as JSON.

    The answer of a generation without content is the text of its last answered attempt. `has_value` is false if there
    is nothing to compare. `written_by` is the generation whose text this one reuses, or itself. `trigger` is
    what started its run.
    """

    id: str
    written_by: str
    created_at: datetime
    flow: str
    step: str
    endpoint: str
    record_key: str
    status: str
    origin: str
    run_id: str
    trigger: str
    template_hash: str
    error_message: str | None
    has_value: bool
    value: Any


@dataclass(frozen=True, slots=True)
class TemplateSources:
    """A version of a template, and the sources of its files by name."""

    name: str
    hash: str
    first_seen_at: datetime
    sources: Mapping[str, str]


def read_compared(engine: Engine, identifier: str, of: Compared) -> ComparedGeneration | None:
    """Return a generation by its id or a unique beginning or end of it; None if there is none, or several."""
    g = Generation
    columns = (
        g.id,
        func.coalesce(g.source_generation_id, g.id),
        g.created_at,
        *(g.flow, g.step, g.endpoint, g.record_key, g.status, g.origin, g.run_id),
        StoredRun.trigger,
        *(g.template_hash, g.error_message),
    )
    with engine.connect() as connection:
        generation_id = find_id(connection, g.id, identifier)
    if generation_id is None:
        return None
    found = rows_of(engine, select(*columns).join(StoredRun, StoredRun.id == g.run_id).where(g.id == generation_id))
    fields: list[Any] = [*found[0], *_READ[of](engine, found[0][0], found[0][1])]
    return ComparedGeneration(*fields)


def find_previous(engine: Engine, identifier: str) -> str | None:
    """Return the record's content before a generation, in the same flow, step and endpoint; None if it is the first.

    It is the content of a run, also before a trial's generation.
    """
    g, before = Generation, Generation.__table__.alias("before")
    # Not an older row of the same text: those confirmed it in earlier releases.
    other_text = func.coalesce(before.c.source_generation_id, before.c.id) != func.coalesce(
        g.source_generation_id, g.id
    )
    same_place = (before.c[name] == g.__table__.c[name] for name in ("flow", "step", "endpoint", "record_key"))
    statement = (
        select(before.c.id)
        .join(g, g.id == identifier)
        .where(*same_place, before.c.status == SUCCEEDED, before.c.id < identifier, other_text)
        .where(~is_of_trial(before.c.run_id))
        .order_by(before.c.id.desc())
        .limit(1)
    )
    found = rows_of(engine, statement)
    return str(found[0][0]) if found else None


def read_template_sources(engine: Engine, version: str, name: str | None = None) -> TemplateSources | None:
    """Return a stored version of a template by its whole hash; None if it is not stored, as of a step made in code."""
    t = StoredTemplate
    statement = select(t.name, t.hash, t.first_seen_at, t.sources).where(t.hash == version)
    found = rows_of(engine, statement if name is None else statement.where(t.name == name))
    return TemplateSources(*found[0]) if found else None


def find_previous_version(engine: Engine, version: TemplateSources) -> str | None:
    """Return the version of a template that was first seen before this one; None if it is the first.

    Versions that were only tried are left out, also before one that was only tried.
    """
    t = StoredTemplate
    older = select(t.hash).where(t.name == version.name, t.first_seen_at < version.first_seen_at)
    tried = only_tried(engine, version.name)
    hashes = (str(row.hash) for row in rows_of(engine, older.order_by(t.first_seen_at.desc())))
    return next((each for each in hashes if each not in tried), None)


def _read_answer(engine: Engine, generation_id: str, written_by: str) -> tuple[bool, Any]:
    answer = select(Generation.status, Generation.output).where(Generation.id == written_by)
    for row in rows_of(engine, answer):
        if row.status == SUCCEEDED:
            return True, row.output
    raw = select(Attempt.output_text).where(Attempt.generation_id == generation_id, Attempt.output_text.is_not(None))
    texts = rows_of(engine, raw.order_by(Attempt.ordinal.desc()).limit(1))
    return bool(texts), _json_or_text(texts[0][0]) if texts else None


def _read_prompt(engine: Engine, generation_id: str, _written_by: str) -> tuple[bool, Any]:
    of_generation = select(StoredPrompt.request).join(Generation, Generation.prompt_hash == StoredPrompt.hash)
    found = rows_of(engine, of_generation.where(Generation.id == generation_id))
    return bool(found), _texts_first(read_request(engine, found[0][0])) if found else None


def _read_record(engine: Engine, generation_id: str, _written_by: str) -> tuple[bool, Any]:
    of_generation = select(StoredRecord.body).join(Generation, Generation.record_hash == StoredRecord.hash)
    found = rows_of(engine, of_generation.where(Generation.id == generation_id))
    return bool(found), orjson.loads(found[0][0]) if found else None


_READ = {"answer": _read_answer, "prompt": _read_prompt, "record": _read_record}


def _json_or_text(text: str) -> Any:
    """Read an answer that is no content: most are JSON, one that was cut off is text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _texts_first(request: Any) -> Any:
    """Put what people wrote before the request's settings."""
    first = [name for name in ("system", "messages") if name in request]
    return {name: request[name] for name in [*first, *(each for each in request if each not in first)]}
