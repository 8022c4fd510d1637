"""Draw the rows of a large ledger: runs of several flows over two years, template versions, failures, reuse."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

ROWS_AT_ONCE = 10_000
END = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 700
FLOWS = {
    "product_copy": ("product_copy",),
    "support_replies": ("support_triage", "support_reply"),
    "newsletter": ("newsletter_summary", "newsletter_intro"),
    "emails": ("email_subject", "email_body"),
    "catalogue": ("catalogue",),
}
VERSIONS = 6
MODELS = ("claude-sonnet-4-6", "claude-sonnet-4-5", "claude-haiku-4-5")
ENDPOINTS = ("anthropic", "anthropic", "anthropic", "sandbox", "gateway")
RECORDS_A_STEP = 10_000
"""The number of different records of a step: each has a history of several generations."""
REUSED, RETRIED, BATCHED = 0.2, 0.5, 0.002
ENDINGS = {"succeeded": 0.965, "invalid": 0.01, "failed": 0.012, "refused": 0.004, "truncated": 0.006}
ERRORS = ("overloaded_error", "rate_limit_error", "timeout", "api_error", "connection")
WORDS = 8_000
_SYLLABLES = "ka re mi so ten lu va dor nel pi sha gra ot bel rin qua ze ho mal fi".split()


@dataclass
class Rows:
    """Rows to be inserted, by table, as tuples in the order of COLUMNS."""

    of: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def add(self, table: str, *values: Any) -> None:
        """Add a row."""
        self.of.setdefault(table, []).append(values)

    def __len__(self) -> int:
        return max((len(rows) for rows in self.of.values()), default=0)


COLUMNS = {
    "runs": "id flow deployment trigger parameters code_version endpoint mode started_at ended_at status process "
    "alive_until prefect_flow_run_id",
    "run_steps": "run_id step position state total unchanged",
    "templates": "hash name sources first_seen_at",
    "texts": "hash body",
    "records": "hash body",
    "prompts": "hash model variant request created_at",
    "generations": "id run_id flow step endpoint record_key record_hash template_hash prompt_hash status origin "
    "source_generation_id output output_hash error_kind error_message created_at",
    "generation_parents": "generation_id parent_id",
    "attempts": "id run_id prompt_hash generation_id ordinal kind started_at ended_at latency_ms http_status "
    "error_type request_id model stop_reason output_text input_tokens output_tokens cache_creation_5m_tokens "
    "cache_creation_1h_tokens cache_read_tokens service_tier cost_usd price_version",
}
"""The tables in the order of insertion, with the columns that are filled."""


class Maker:
    """Draws the rows of runs one after another, the oldest first."""

    def __init__(self, generations: int, seed: int = 12) -> None:
        self._left = generations
        self._draw = random.Random(seed)
        self._words = [self._word() for _number in range(WORDS)]
        # The n-th word comes 1/n as often as the first, as in any language (Zipf).
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(WORDS)))
        self._newest: dict[tuple[str, str, str], str] = {}
        self._made = 0
        self.rows = Rows()

    def runs(self) -> Iterator[Rows]:
        """Yield the rows in parts, each to be inserted in one transaction."""
        self._templates()
        flows = list(FLOWS)
        started = END - timedelta(days=DAYS)
        gap = timedelta(days=DAYS) / (self._left / 1_100)
        while self._left > 0:
            flow = self._draw.choice(flows)
            size = min(self._left, round(self._draw.lognormvariate(6.0, 1.0)) * len(FLOWS[flow]) + 1)
            self._run(flow, started, size)
            self._left -= size
            started += gap * self._draw.uniform(0.2, 1.8)
            if len(self.rows) >= ROWS_AT_ONCE or self._left <= 0:
                yield self.rows
                self.rows = Rows()

    def _templates(self) -> None:
        self.rows.add("texts", _hash("schema"), '{"type": "object", "properties": {"title": {"type": "string"}}}')
        for step in (step for steps in FLOWS.values() for step in steps):
            self.rows.add("texts", _hash(f"system {step}"), f"You write the texts of {step}. " * 20)
            for version in range(VERSIONS):
                write = f"Write {step}, version {version}: {{{{ name }}}}"
                source = f"---\nselect: SELECT * FROM {step}\nkey: id\n---\n{write}\n"
                first = END - timedelta(days=DAYS * (VERSIONS - version) / VERSIONS)
                sources = json.dumps({f"{step}.md.j2": source})
                self.rows.add("templates", _hash(f"{step} {version}"), step, sources, first)

    def _run(self, flow: str, started: datetime, size: int) -> None:
        draw, run_id = self._draw, _id(started, self._draw)
        endpoint = draw.choice(ENDPOINTS)
        steps = FLOWS[flow]
        moment = started
        age = (END - started).days / DAYS
        version = min(VERSIONS - 1, int((1 - age) * VERSIONS))
        batched = draw.random() < BATCHED * 5
        each = max(1, size // len(steps))
        status = draw.choices(("completed", "failed", "cancelled", "crashed", "capped"), (93, 3, 2, 1, 1))[0]
        trigger = draw.choice(("command", "schedule", "schedule", "deployment"))
        ended = started + timedelta(milliseconds=180 * size + 2_000)
        self.rows.add(
            "runs", run_id, flow, f"{flow}/daily", trigger, json.dumps({"options": {"limit": size}}), f"v{version}",
            endpoint, "live", started, ended, status, "host/1/2", ended, _id(started, draw),
        )  # fmt: skip
        before: list[tuple[str, str]] = []
        for position, step in enumerate(steps, start=1):
            keys = draw.sample(range(RECORDS_A_STEP), min(each, RECORDS_A_STEP)) if not before else []
            pairs = before or [(f"K-{number:06d}", "") for number in keys]
            made = []
            for key, parent in pairs:
                moment += timedelta(milliseconds=180)
                generation = self._generation(run_id, flow, step, endpoint, key, version, moment, batched=batched)
                if parent:
                    self.rows.add("generation_parents", generation, parent)
                made.append((key, generation))
            self.rows.add("run_steps", run_id, step, position, "done", len(pairs), draw.randrange(50))
            before = made

    def _generation(
        self,
        run_id: str,
        flow: str,
        step: str,
        endpoint: str,
        key: str,
        version: int,
        moment: datetime,
        *,
        batched: bool,
    ) -> str:
        draw = self._draw
        generation, number = _id(moment, draw), self._made
        self._made += 1
        template = _hash(f"{step} {version}")
        place = (step, endpoint, key)
        source = self._newest.get(place)
        record = json.dumps({"id": key, "name": self._text(6), "note": self._text(25), "seen": number})
        record_hash = _hash(record)
        self.rows.add("records", record_hash, record)
        if source is not None and draw.random() < REUSED:
            self.rows.add(
                "generations", generation, run_id, flow, step, endpoint, key, record_hash, template,
                _hash(f"prompt {source}"), "succeeded", "cache", source, None, None, None, None, moment,
            )  # fmt: skip
            return generation
        status = draw.choices(list(ENDINGS), list(ENDINGS.values()))[0]
        model = MODELS[0] if version >= VERSIONS // 2 else draw.choice(MODELS)
        prompt = _hash(f"prompt {generation}")
        asked = f"Write {step}, version {version}: {self._text(20)}"
        request = json.dumps(
            {
                "model": model,
                "max_tokens": 1024,
                "system": [{"type": "text", "text": {"$text": _hash(f"system {step}")}}],
                "messages": [{"role": "user", "content": asked}],
                "output_config": {"format": {"type": "json_schema", "schema": {"$json": _hash("schema")}}},
            }
        )
        self.rows.add("prompts", prompt, model, 0, request, moment)
        rare = f" zyx{number:07d}" if number % 1_000 == 0 else ""
        output = json.dumps({"title": self._text(6), "text": self._text(45) + rare})
        good = status == "succeeded"
        if good:
            self._newest[place] = generation
        self.rows.add(
            "generations", generation, run_id, flow, step, endpoint, key, record_hash, template, prompt, status,
            "batch" if batched else "live", None, output if good else None, _hash(output) if good else None,
            None if good else status, None if good else f"It ended as {status}.", moment,
        )  # fmt: skip
        self._attempts(run_id, generation, prompt, model, status, output, moment, version)
        return generation

    def _attempts(
        self, run_id: str, generation: str, prompt: str, model: str, status: str, output: str, moment: datetime,
        version: int,
    ) -> None:  # fmt: skip
        draw = self._draw
        tries = 2 if draw.random() < RETRIED else 1
        for ordinal in range(1, tries + 1):
            is_last = ordinal == tries
            error = None if is_last and status != "failed" else draw.choice(ERRORS)
            answered = error is None
            tokens_out = draw.randrange(60, 400)
            read = 900 if draw.random() < 0.7 else 0
            cost = round((120 * 3 + tokens_out * 15 + read * 0.3) / 1e6 + version * 1e-7, 10)
            latency = draw.randrange(800, 6_000)
            self.rows.add(
                "attempts", _id(moment, draw), run_id, prompt, generation, ordinal, "call" if ordinal == 1 else "retry",
                moment, moment + timedelta(milliseconds=latency), latency,
                200 if answered else 529, error, f"req_{generation[-12:]}{ordinal}", model if answered else None,
                ("max_tokens" if status == "truncated" else "end_turn") if answered else None,
                output if answered else None, 120 if answered else None, tokens_out if answered else None,
                0 if read else 900, 0, read, "standard" if answered else None, cost if answered else None, "made",
            )  # fmt: skip

    def _word(self) -> str:
        return "".join(self._draw.choices(_SYLLABLES, k=self._draw.randrange(1, 5)))

    def _text(self, words: int) -> str:
        return " ".join(self._draw.choices(self._words, cum_weights=self._weights, k=words))


def _id(moment: datetime, draw: random.Random) -> str:
    millis = int(moment.timestamp() * 1000)
    rest = draw.getrandbits(74)
    number = (millis << 80) | (7 << 76) | ((rest >> 62) << 64) | (2 << 62) | (rest & ((1 << 62) - 1))
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
