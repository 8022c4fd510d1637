"""Read the texts of answers that a search compares, each text once.

They are the strings in a generation's `output`. A generation without content has the raw text of its last answered
attempt instead. A row that reused an answer has no text of its own.
"""

from collections.abc import Iterator, Sequence

import orjson
from sqlalchemy import Engine, Text, cast, select, tuple_

from db.session import in_parts, rows_of
from db.tables import Attempt, Generation

ANSWERS_AT_ONCE = 2_000
"""The maximum number of a run's generations in one part."""


def ids_of_run(engine: Engine, run_id: str) -> Iterator[list[str]]:
    """Yield the ids of a run's generations that have texts of their own, in parts; each part is its own transaction."""
    g = Generation
    place = (g.step, g.record_key, g.replaced_by)
    own = select(g.id, *place).where(g.run_id == run_id, g.source_generation_id.is_(None)).order_by(*place)
    part = rows_of(engine, own.limit(ANSWERS_AT_ONCE))
    while part:
        yield [row.id for row in part]
        following = tuple_(*place) > tuple_(*part[-1][1:])
        part = rows_of(engine, own.where(following).limit(ANSWERS_AT_ONCE)) if len(part) == ANSWERS_AT_ONCE else []


def stored_answers(engine: Engine, ids: Sequence[str]) -> dict[str, str]:
    """Return the answer of each generation as stored, as JSON or as raw text; those without any answer are left out."""
    found: dict[str, str] = {}
    for part in in_parts(ids):
        outputs = select(Generation.id, cast(Generation.output, Text)).where(Generation.id.in_(part))
        own = {row[0]: row[1] for row in rows_of(engine, outputs)}
        found |= {each: str(output) for each, output in own.items() if output is not None}
        found |= _last_attempts(engine, [each for each, output in own.items() if output is None])
    return found


def _last_attempts(engine: Engine, ids: Sequence[str]) -> dict[str, str]:
    if not ids:
        return {}
    answered = (Attempt.generation_id.in_(ids), Attempt.output_text.is_not(None))
    statement = select(Attempt.generation_id, Attempt.output_text).where(*answered)
    # The last of a generation overrides those before it.
    return {row[0]: row[1] for row in rows_of(engine, statement.order_by(Attempt.ordinal, Attempt.id))}


def texts_in(answer: str) -> list[str]:
    """Return the strings in an answer's JSON, in order and without keys; the answer itself if it is no JSON."""
    try:
        value = orjson.loads(answer)
    except ValueError:
        return [answer]
    found: list[str] = []
    waiting = [value]
    # Not by recursion: an answer may be nested deeper than Python's stack.
    while waiting:
        match waiting.pop():
            case str() as text:
                found.append(text)
            case dict() as fields:
                waiting += reversed(fields.values())
            case list() as items:
                waiting += reversed(items)
    return found
