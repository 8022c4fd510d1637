"""Make the ledgers of this folder, by code of earlier commits: `python -m tests.db.earlier.make COMMIT FOLDER`.

FOLDER holds that commit's code (`git archive COMMIT | tar -x -C FOLDER`), which runs with today's packages. Each ledger
has the same runs (`tell_story`), on SQLite and on PostgreSQL, and its last run is killed while it runs. Names of the
machine are left out; the output of the commit's own `presswork history` for each run is stored next to the rows.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text

from bench.stage import Stage, open_stage
from db.machine import here

HERE = Path(__file__).resolve().parent
TABLES = ("texts", "prompts", "records", "templates", "runs", "claims", "attempts", "generations", "generation_parents")
"""All of revisions 0001 and 0002, each after those that it refers to."""
BOOT = "00000000-0000-4000-8000-000000000000"
NOTE = """
import asyncio
from flows.content import content
from flows.engine import RunOptions
asyncio.run(content("note", options=RunOptions(**{options!r})))
"""
CHAIN = """
import asyncio
from prefect import flow
from flows.engine import RunOptions, open_run

@flow(name="chain")
async def chain() -> None:
    async with open_run(RunOptions(concurrency=4)) as run:
        tickets = run.select("sort")
        sorted_ = await run.generate("sort", tickets)
        await run.generate("answer", sorted_.where(lambda ticket: not ticket.output.urgent))

asyncio.run(chain())
"""


@dataclass
class Story:
    """One ledger that is being made by the code in `folder`."""

    stage: Stage
    folder: Path
    ledger: str
    source: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        made = self.stage.environment(f"sqlite:///{self.source}", self.ledger)
        self.environment = {**made, "PYTHONPATH": str(self.folder), "PRESSWORK_TEMPLATES_DIR": str(HERE)}

    def items(self, *rows: tuple[str, str, str]) -> None:
        with closing(sqlite3.connect(self.source)) as database, database:
            database.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)

    def start(self, code: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code], cwd=self.folder, env=self.environment)

    def run(self, code: str) -> None:
        if self.start(code).wait(300):
            raise RuntimeError("the run failed: see the output above")

    def presswork(self, *arguments: str) -> Any:
        command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments, "--json"]
        said = subprocess.run(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, check=True)
        return json.loads(said.stdout)


def tell_story(story: Story) -> None:
    """Make runs with content, a failure, a refusal, a refresh, a changed record, a chain and shards; kill the last."""
    stage = story.stage
    with closing(sqlite3.connect(story.source)) as database, database:
        database.execute("CREATE TABLE items (id TEXT PRIMARY KEY, name TEXT, look TEXT)")
        database.execute("CREATE TABLE tickets (id TEXT PRIMARY KEY, name TEXT)")
        tickets = [(f"t{number}", f"ticket {number}") for number in range(5)]
        database.executemany("INSERT INTO tickets VALUES (?, ?)", tickets)
    story.presswork("db", "upgrade")
    note = {"concurrency": 4, "chunk_size": 4}
    stage.set_sandbox()
    story.items(*((f"{number:03}", f"item {number}", "name") for number in range(6)), ("bad", "bad", "gone"))
    story.run(NOTE.format(options=note))
    stage.set_sandbox(refused=1)
    story.items(("100", "refused at first", "name"))
    story.run(NOTE.format(options=note))
    stage.set_sandbox()
    story.run(NOTE.format(options={**note, "refresh": True, "limit": 3}))
    story.items(("001", "item 1, as it is now", "name"))
    story.run(NOTE.format(options=note))
    story.run(CHAIN)
    _spread(story)
    stage.set_sandbox(latency_ms=400)
    story.items(*((f"{number:03}", f"item {number}", "name") for number in range(200, 216)))
    killed = story.start(NOTE.format(options=note))
    while stage.sandbox_stats()["served"]["answers"] < 7:
        time.sleep(0.01)
    killed.kill()
    killed.wait()


def _spread(story: Story) -> None:
    """Split a run of six more records into two shards, with a Prefect worker."""
    story.items(*((f"{number:03}", f"item {number}", "name") for number in range(110, 116)))
    prefect = [str(Path(sys.executable).with_name("prefect")), "--no-prompt"]
    pool = f"earlier-{story.source.stem}"

    def tell(*arguments: str) -> None:
        subprocess.run([*prefect, *arguments], cwd=story.folder, env=story.environment, check=True)

    tell("work-pool", "create", pool, "--type", "process")
    tell("deploy", "flows.content:content", "--name", pool, "--pool", pool)
    environment = {**story.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    worker = subprocess.Popen([*prefect, "worker", "start", "--pool", pool], cwd=story.folder, env=environment)
    try:
        options = {"concurrency": 4, "chunk_size": 4, "shards": 2}
        given = ["--param", "template=note", "--param", f"options={json.dumps(options)}"]
        tell("deployment", "run", f"content/{pool}", *given, "--watch")
    finally:
        worker.terminate()
        worker.wait(60)


def write_fixture(commit: str, story: Story) -> None:
    """Store the ledger, and what its own code reports of it, in this folder."""
    engine = create_engine(story.ledger)
    runs = [run["id"] for run in story.presswork("history", "--limit", "100")]
    with closing(sqlite3.connect(story.source)) as database:
        items, tickets = (database.execute(f"SELECT * FROM {table}").fetchall() for table in ("items", "tickets"))
    found = {
        "commit": commit,
        "revision": _value(engine, "SELECT version_num FROM alembic_version"),
        "killed": _value(engine, "SELECT max(id) FROM runs"),
        "items": items,
        "tickets": tickets,
        "history": {run: story.presswork("history", run) for run in runs},
        "ledger": _rows(engine) if engine.dialect.name == "postgresql" else _script(story.ledger),
    }
    engine.dispose()
    file = HERE / f"{commit}.{engine.dialect.name}.json"
    file.write_text(_without_machine(json.dumps(found, indent=0, ensure_ascii=False), story) + "\n", encoding="utf-8")


def _value(engine: Engine, sql: str) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text(sql)).scalar_one())


def _script(url: str) -> list[str]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        return list(database.iterdump())


def _rows(engine: Engine) -> Mapping[str, list[dict[str, Any]]]:
    """All rows of each table as JSON that PostgreSQL accepts again; money's ten decimals fit into a double."""
    with engine.connect() as connection:
        select = "SELECT row_to_json(t) FROM {} t ORDER BY row_to_json(t)::text"
        return {
            table: [
                {name: value for name, value in row.items() if value is not None}
                for row in connection.scalars(text(select.format(table)))
            ]
            for table in TABLES
        }


def _without_machine(told: str, story: Story) -> str:
    told = told.replace(here().boot_id, BOOT)
    for name in (str(story.folder), str(story.stage.folder), socket.gethostname()):
        told = told.replace(name, "elsewhere")
    return told


def main() -> None:
    """Make the two ledgers of a commit."""
    commit, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    with open_stage(4) as stage:
        for kind, ledger in (("sqlite", stage.new_sqlite()), ("postgresql", stage.new_database())):
            story = Story(stage, folder, ledger, stage.folder / f"{kind}-{commit}.sqlite")
            tell_story(story)
            write_fixture(commit, story)


if __name__ == "__main__":
    main()
