"""Many small runs with all kinds of generations, drawn from a seed, for lists that are compared with plain Python."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select, update

from db.ledger.rows import GenerationRow, PromptRow, RecordRow, TemplateRow, WriteBatch
from db.ledger.writing import add_templates, write
from db.rollups.marks import roll_up, unmark
from db.session import begin_write
from db.tables import Generation, StoredRun
from tests.db.rows import run_row, sha, start_run

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FLOWS = {"copy": ("copy",), "replies": ("triage", "reply"), "mails": ("copy", "subject")}
MODELS = ("claude-sonnet-4-6", "claude-haiku-4-5")
STARTERS = ("command", "schedule", "try")
ENDINGS = ("succeeded", "succeeded", "succeeded", "succeeded", "invalid", "failed", "skipped")


@dataclass(frozen=True)
class Made:
    """A generation as it was written, for comparing."""

    row: GenerationRow
    model: str | None


def id_at(moment: datetime, draw: random.Random) -> str:
    """Make a UUIDv7 of a moment."""
    number = (int(moment.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | draw.getrandbits(62)
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Library:
    """A ledger with runs that overlap; some are open, some are closed but not added up."""

    def __init__(self, ledger: Engine, seed: int) -> None:
        self.ledger, self.draw = ledger, random.Random(seed)
        self.made: list[Made] = []
        self.runs: list[str] = []
        self.triggers: dict[str, str] = {}
        templates = [
            TemplateRow(hash=sha(f"{step} {version}"), name=step, sources={f"{step}.md.j2": "x"}, first_seen_at=BEGIN)
            for step in {step for steps in FLOWS.values() for step in steps}
            for version in range(3)
        ]
        add_templates(ledger, templates)

    def run(self, started: datetime, *, rows: int = 20, is_open: bool = False, mark: bool = True) -> str:
        """Write a run with its generations; half an hour passes between its first and its last."""
        draw = self.draw
        flow = draw.choice(list(FLOWS))
        row = run_row(
            id=id_at(started, draw),
            flow=flow,
            endpoint=draw.choice(("anthropic", "sandbox")),
            trigger=draw.choice(STARTERS),
            started_at=started,
            status="running" if is_open else draw.choice(("completed", "failed", "crashed")),
        )
        start_run(self.ledger, row, id_at(started, draw))
        self.runs.append(row.id)
        self.triggers[row.id] = row.trigger
        batch = WriteBatch()
        version = draw.randrange(3)
        for step in FLOWS[flow]:
            for key in draw.sample(range(60), rows // len(FLOWS[flow])):
                moment = started + timedelta(seconds=draw.randrange(1800))
                self._generation(
                    batch, row.id, flow, step, row.endpoint, f"{'a' if key % 2 else 'b'}{key}", version, moment
                )
        write(self.ledger, batch)
        if not is_open:
            with self.ledger.begin() as connection:
                ended = started + timedelta(seconds=1900)
                connection.execute(update(StoredRun).where(StoredRun.id == row.id).values(ended_at=ended))
        if mark and not is_open:
            with begin_write(self.ledger) as connection:
                roll_up(connection, row.id)
        return row.id

    def late(self, run_id: str) -> None:
        """Write more generations of a closed run, as an imported spill file does: new ones, and some once more."""
        with begin_write(self.ledger) as connection:
            unmark(connection, [run_id])
            run = connection.execute(select(StoredRun.__table__).where(StoredRun.id == run_id)).one()
        batch = WriteBatch()
        step = FLOWS[run.flow][0]
        moment = run.started_at + timedelta(seconds=900)
        again = [made.row.record_key for made in self.made if made.row.run_id == run_id and made.row.step == step][:3]
        for key in [*again, *(f"a{key}" for key in range(60, 65))]:
            self._generation(batch, run_id, run.flow, step, run.endpoint, key, 0, moment)
        write(self.ledger, batch)

    def replaced(self) -> set[str]:
        """Return the ids of the generations that another one of their run replaced."""
        with self.ledger.connect() as connection:
            return set(connection.scalars(select(Generation.id).where(Generation.replaced_by != "")))

    def _generation(
        self, batch: WriteBatch, run_id: str, flow: str, step: str, endpoint: str, key: str, version: int, at: datetime
    ) -> None:
        draw = self.draw
        status = draw.choice(ENDINGS)
        earlier = [m.row for m in self.made if m.row.status == "succeeded" and m.row.origin != "cache"]
        is_cached = status == "succeeded" and bool(earlier) and draw.random() < 0.3
        model = None if status == "skipped" else draw.choice(MODELS)
        prompt = None if model is None else sha(f"{key} {model} {len(self.made)}")
        batch.records[sha("{}")] = RecordRow(sha("{}"), "{}")
        if model is not None and prompt is not None:
            batch.prompts[prompt] = PromptRow(hash=prompt, model=model, variant=0, request="{}", created_at=at)
        good: dict[str, Any] = {"output": {"title": f"About {key}"}, "output_hash": sha(key)}
        row = GenerationRow(
            id=id_at(at, draw),
            run_id=run_id,
            flow=flow,
            step=step,
            endpoint=endpoint,
            record_key=key,
            record_hash=sha("{}"),
            template_hash=sha(f"{step} {version}"),
            prompt_hash=prompt,
            status=status,  # type: ignore[arg-type]
            origin="cache" if is_cached else draw.choice(("live", "live", "live", "batch")),
            source_generation_id=draw.choice(earlier).id if is_cached else None,
            error_kind=None if status in {"succeeded", "skipped"} else draw.choice((status, "other")),
            created_at=at + timedelta(seconds=draw.randrange(60)),
            **(good if status == "succeeded" and not is_cached else {}),
        )
        batch.generations.append(row)
        self.made.append(Made(row, model))
