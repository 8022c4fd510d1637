"""A made night that keeps all promises, as rows and exchanges in memory, for tests that break one of them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from presswork.prices import Usage
from tests.nights.promised.evidence import Evidence
from tests.nights.promised.ledger_rows import (
    KeptAttempt,
    KeptClaim,
    KeptContent,
    KeptGeneration,
    KeptLease,
    KeptPrompt,
    KeptRun,
    KeptStep,
    KeptWork,
    LedgerRows,
    units,
)
from tests.nights.promised.night_result import NightResult, ProcessStory, RunStory
from tests.nights.served.exchanges import Exchange

STEP = "note"
COST = Decimal("0.0018")
LIKELY = Decimal("0.0020")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record_of(key: str) -> str:
    return json.dumps({"id": key, "name": f"thing {key}"})


@dataclass
class MadeNight:
    """Runs that answered each record at a time of its own; `rows` has a list for each kind of row."""

    runs: list[KeptRun] = field(default_factory=list)
    steps: list[KeptStep] = field(default_factory=list)
    leases: list[KeptLease] = field(default_factory=list)
    claims: list[KeptClaim] = field(default_factory=list)
    working: list[KeptWork] = field(default_factory=list)
    generations: list[KeptGeneration] = field(default_factory=list)
    content: dict[str, KeptContent] = field(default_factory=dict)
    attempts: list[KeptAttempt] = field(default_factory=list)
    prompts: dict[str, KeptPrompt] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    processes: dict[str, ProcessStory] = field(default_factory=dict)
    stories: list[RunStory] = field(default_factory=list)
    committed: dict[str, float] = field(default_factory=dict)
    settled: dict[str, float] = field(default_factory=dict)
    steps_done: dict[str, list[float]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    """Other values of the result."""

    def run(self, run_id: str, process: str, keys: str = "", began: float = 0.0, ended: float | None = 100.0) -> None:
        """Add a completed run of a process that reads these records, one letter each."""
        self.runs.append(KeptRun(run_id, "job", "sandbox", "completed"))
        self.steps.append(KeptStep(run_id, STEP, total=len(keys)))
        self.processes[process] = ProcessStory(process)
        texts = {key: record_of(key) for key in keys}
        self.records |= {sha(text): text for text in texts.values()}
        self.stories.append(
            RunStory(process, run_id, began_at=began, ended_at=ended, exit_status=0, records={STEP: texts})
        )

    def ask(self, key: str, at: float, process: str, **own: Any) -> Exchange:
        """Add an exchange: by default a good answer that arrived after a second."""
        number = len(self.exchanges) + 1
        exchange = Exchange(
            number=number,
            at=at,
            arrived_at=at,
            process=process,
            body=key.encode(),
            prompt=sha(f"prompt {key}"),
            model="claude-sonnet-4-6",
            max_tokens=256,
            request_id=f"req_{number}",
            status=200,
            answered_model="claude-sonnet-4-6",
            usage=Usage(100, output_tokens=100),
            cost_usd=COST,
            good=True,
            text=json.dumps({"subject": f"About {key}"}),
            answered_at=at + 1.0,
            ended_at=at + 1.0,
            delivered=True,
        )
        exchange = replace(exchange, **own)
        self.exchanges.append(exchange)
        return exchange

    def attempt(self, exchange: Exchange, run_id: str, **own: Any) -> KeptAttempt:
        """Add the attempt of an exchange, committed just before it."""
        number = len(self.attempts) + 1
        usage = exchange.usage
        assert usage is not None
        row = KeptAttempt(
            id=f"a{number:03}",
            run_id=run_id,
            prompt_hash=exchange.prompt,
            generation_id=f"g{number:03}",
            http_status=exchange.status,
            request_id=exchange.request_id,
            model=exchange.answered_model,
            stop_reason="end_turn",
            output_text=exchange.text,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_creation_5m_tokens=0,
            cache_creation_1h_tokens=0,
            cache_read_tokens=0,
            cost_usd=units(exchange.cost_usd),
            likely_cost_usd=units(LIKELY),
        )
        row = replace(row, **own)
        self.attempts.append(row)
        self.committed[row.id] = exchange.at - 0.1
        if row.ended_at is not None:
            self.settled[row.id] = (exchange.ended_at or exchange.at) + 0.05
        return row

    def answer(self, key: str, at: float = 1.0, run_id: str = "r1", process: str = "p1") -> KeptGeneration:
        """Add a request with a good answer, which becomes content of the run's record."""
        exchange = self.ask(key, at, process)
        attempt = self.attempt(exchange, run_id)
        asked = {"messages": [{"role": "user", "content": f"A line about thing {key}."}]}
        self.prompts[exchange.prompt] = KeptPrompt(exchange.prompt, exchange.model, json.dumps(asked))
        return self.generation(key, run_id, id=attempt.generation_id, output=exchange.text, at=at + 1.05)

    def generation(self, key: str, run_id: str, *, at: float = 2.0, **own: Any) -> KeptGeneration:
        """Add a generation, which becomes current if it succeeded."""
        row = KeptGeneration(
            id=f"g9{len(self.generations):02}",
            run_id=run_id,
            flow="job",
            step=STEP,
            endpoint="sandbox",
            record_key=key,
            status="succeeded",
            origin="live",
            record_hash=sha(record_of(key)),
            template_hash="t",
            prompt_hash=sha(f"prompt {key}"),
        )
        row = replace(row, **own)
        self.generations.append(row)
        self.committed[row.id] = at
        if row.status == "succeeded":
            self.content[key] = KeptContent("job", STEP, "sandbox", key, row.id, row.created_at, run_id)
        else:
            before = self.content.get(key, KeptContent("job", STEP, "sandbox", key))
            self.content[key] = replace(before, failing_id=row.id, failing_run_id=run_id)
        return row

    def story(self, number: int = 0, **values: Any) -> None:
        """Change a story."""
        self.stories[number] = replace(self.stories[number], **values)

    def process(self, name: str = "p1", **values: Any) -> None:
        """Change what happened to a process."""
        self.processes[name] = replace(self.processes[name], **values)

    def served(self, number: int = 0, **values: Any) -> None:
        """Change an exchange."""
        self.exchanges[number] = replace(self.exchanges[number], **values)

    def asked(self, number: int = 0, **values: Any) -> None:
        """Change an attempt."""
        self.attempts[number] = replace(self.attempts[number], **values)

    def wrote(self, number: int = 0, **values: Any) -> None:
        """Change a generation."""
        self.generations[number] = replace(self.generations[number], **values)

    def evidence(self) -> Evidence:
        """Return the night for the checks."""
        night = NightResult(
            ledger=Path("none"),
            exchanges=self.exchanges,
            processes=list(self.processes.values()),
            runs=self.stories,
            committed_at=self.committed,
            settled_at=self.settled,
            steps_done_at=self.steps_done,
            fails_before_all=("TemplateError",),
            marks={STEP: lambda record: str(record["name"])},
            **self.told,
        )
        rows = LedgerRows(
            runs=tuple(self.runs),
            steps=tuple(self.steps),
            leases=tuple(self.leases),
            claims=tuple(self.claims),
            working=tuple(self.working),
            generations=tuple(self.generations),
            content=tuple(self.content.values()),
            attempts=tuple(self.attempts),
            prompts=tuple(self.prompts.values()),
            records=self.records,
        )
        return Evidence(night, rows)


def one_run(*changes: Callable[[MadeNight], object]) -> MadeNight:
    """Make a night of one run that answered two records, with some changes."""
    night = MadeNight()
    night.run("r1", "p1", "ab")
    night.answer("a", 1.0)
    night.answer("b", 3.0)
    for change in changes:
        change(night)
    return night
