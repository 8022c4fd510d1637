"""Measure look-ups of prompts and records, and a join of records to content, in a ledger with a million contents."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from alembic import command
from sqlalchemy import Engine, text

from bench.meter import Meter, Sample
from bench.stage import Stage
from db.ledger.connecting import connect_ledger, upgrade
from db.ledger.migrating import alembic_config
from db.readers.look_up import look_up
from db.readers.what_stands import read_standing
from db.session import begin_write

PAGE, PAGES = 500, 40
JOINED = 10_000
BEFORE = "0002"
"""The revision at which the ledger is filled; the later migrations make the rest from these rows."""

_NUMBERS = {
    "sqlite": "WITH RECURSIVE one(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM one WHERE n < {last}) ",
    "postgresql": "WITH one AS (SELECT generate_series(1, {last}) AS n) ",
}
# The values are spread over the index, as hashes are.
_HASH = {
    "sqlite": "printf('%08x%056x', (n * 2654435761) % 4294967296, n)",
    "postgresql": "lpad(to_hex(mod(n * 2654435761, 4294967296)), 8, '0') || lpad(to_hex(n), 56, '0')",
}
_ID = {
    "sqlite": "printf('01900000-0000-7000-8000-%012x', n)",
    "postgresql": "'01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0')",
}
_RUN = """INSERT INTO runs (id, flow, trigger, parameters, code_version, endpoint, mode, status, process,
    started_at, ended_at, alive_until)
    VALUES ('run', 'bench', 'command', '{{}}', '0', 'anthropic', 'live', 'completed', 'host', {now}, {now}, {now})"""
_GENERATIONS = """INSERT INTO generations (id, run_id, flow, step, endpoint, record_key, template_hash, prompt_hash,
    status, origin, output, output_hash, created_at) {numbers}
    SELECT {id}, 'run', 'bench', 'bench', 'anthropic', 'key ' || n, '{hash}', {prompt}, 'succeeded', 'live', {output},
    '{hash}', {now} FROM one"""
_ITEMS = "CREATE TABLE items AS {numbers} SELECT 'key ' || (n * {step}) AS id FROM one"
_JOIN = """SELECT count(c.output) FROM items i LEFT JOIN current_content c
    ON c.flow = 'bench' AND c.step = 'bench' AND c.endpoint = 'anthropic' AND c.record_key = i.id"""


def standing(kind: str, contents: int, *, on_postgres: bool) -> Callable[[Stage], Sample]:
    """Return a measurement: look up pages by prompt (`prompts`) or key (`keys`), or join JOINED records (`join`)."""

    def take(stage: Stage) -> Sample:
        with _filled(stage, contents, on_postgres=on_postgres) as ledger:
            return _join(ledger) if kind == "join" else _look_up(ledger, kind, contents)

    return take


@contextmanager
def _filled(stage: Stage, contents: int, *, on_postgres: bool) -> Iterator[Engine]:
    name = f"standing {contents} {on_postgres}"
    if name not in stage.made:
        stage.made[name] = stage.new_database() if on_postgres else stage.new_sqlite()
        engine = connect_ledger(stage.made[name])
        _fill(engine, contents)
        engine.dispose()
    engine = connect_ledger(stage.made[name])
    yield engine
    engine.dispose()


def _fill(engine: Engine, contents: int) -> None:
    with begin_write(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
    kind = engine.dialect.name
    output = json.dumps({"subject": "Tea that was dried over embers of oak", "preheader": "x" * 100})
    json_of = f"CAST('{output}' AS json)" if kind == "postgresql" else f"'{output}'"
    words = {"now": "CURRENT_TIMESTAMP", "id": _ID[kind], "prompt": _HASH[kind], "hash": "0" * 64, "output": json_of}
    many, few = (_NUMBERS[kind].format(last=last) for last in (contents, JOINED))
    with begin_write(engine) as connection:
        connection.exec_driver_sql(_RUN.format(**words))
        connection.exec_driver_sql(_GENERATIONS.format(numbers=many, **words))
        connection.exec_driver_sql(_ITEMS.format(numbers=few, step=contents // JOINED))
    upgrade(engine)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE" if kind == "postgresql" else "PRAGMA wal_checkpoint(TRUNCATE)"))


def _look_up(engine: Engine, kind: str, contents: int) -> Sample:
    chosen = random.Random(1).sample(range(1, contents + 1), PAGE * PAGES)
    pages = [chosen[start : start + PAGE] for start in range(0, len(chosen), PAGE)]
    sample, meter = Sample(records=len(chosen)), Meter({})
    _look_at(engine, kind, pages[0])
    meter.start()
    sample.succeeded = sum(_look_at(engine, kind, page) for page in pages)
    meter.read(sample)
    return sample


def _look_at(engine: Engine, kind: str, page: Sequence[int]) -> int:
    if kind == "prompts":
        return len(look_up(engine, [f"{n * 2654435761 % 2**32:08x}{n:056x}" for n in page]))
    keys = [f"key {n}" for n in page]
    return len(read_standing(engine, "bench", "bench", "anthropic", keys, with_parents=False))


def _join(engine: Engine) -> Sample:
    sample, meter = Sample(records=JOINED), Meter({})
    with engine.connect() as connection:
        meter.start()
        sample.succeeded = int(connection.execute(text(_JOIN)).scalar_one())
        meter.read(sample)
    return sample
