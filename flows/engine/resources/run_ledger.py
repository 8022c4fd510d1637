"""The ledger as one run uses it; every read and claim waits for a ledger that is unavailable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from db.ledger import writing
from db.ledger.rows import TemplateRow
from db.readers.chains import Spent, spent_by_chain
from db.readers.figures import TotalUsage, usage
from db.readers.look_up import BadOutcome, PromptHistory, bad_outcomes_of, look_up
from db.readers.past_answers import mean_tokens
from db.readers.runs import shards_of
from db.readers.stored_generations import count_padded_keys
from flows.engine.resources.lease import HeldLease
from flows.engine.resources.writer import Writer


@dataclass
class RunLedger:
    """Implements flows.engine.context.LookUp and Claims.

    `fresh_since` is when a run began that refreshes: what is older counts as not known. `shards` are the runs that this
    one was spread over, None before that.
    """

    engine: Engine
    writer: Writer
    lease: HeldLease
    run_id: str
    flow: str
    endpoint: str
    fresh_since: datetime | None = None
    shards: Sequence[str] | None = None

    async def known(self, hashes: Iterable[str]) -> Mapping[str, PromptHistory]:
        """What is known of prompts; where the run refreshes, only what is new since it began."""
        return await self.writer.read(look_up, self.engine, list(set(hashes)), since=self.fresh_since)

    async def bad_outcomes(self, hashes: Iterable[str]) -> Mapping[str, BadOutcome]:
        """How the run's own shards fared with prompts that brought no content: it does not ask for these again."""
        if not self.shards:
            return {}
        return await self.writer.read(bad_outcomes_of, self.engine, self.shards, list(set(hashes)))

    async def take(self, hashes: Sequence[str]) -> set[str]:
        """Claim prompts, and return those that are now this run's."""
        return await self.writer.call(self.lease.take, hashes)

    async def ready(self, prompt_hash: str) -> None:
        """Wait until a request may be sent; ClaimLostError where the prompt must be claimed again first."""
        await self.lease.ready(prompt_hash)

    def release(self, prompt_hash: str) -> None:
        """Give a claim back with the writer's next commit."""
        self.writer.release_claim(prompt_hash)
        self.lease.released(prompt_hash)

    async def mean_tokens(self, step: str, model: str) -> tuple[float, float] | None:
        """The mean input and output tokens of earlier answers of a step by a model."""
        return await self.writer.read(mean_tokens, self.engine, self.flow, step, self.endpoint, model)

    async def padded_keys(self, step: str) -> int:
        """How many records have content under keys that end in blanks."""
        return await self.writer.read(count_padded_keys, self.engine, self.flow, step, self.endpoint)

    async def find_shards(self) -> None:
        """Take note of the run's shards."""
        self.shards = await self.writer.read(shards_of, self.engine, self.run_id)

    async def spent(self) -> Spent:
        """What the run, its shards and the runs that it resumes have spent."""
        return await self.writer.read(spent_by_chain, self.engine, self.run_id)

    async def used(self, step: str) -> TotalUsage:
        """What a step has used so far."""
        return await self.writer.read(usage, self.engine, self.run_id, step=step)

    async def add_template(self, row: TemplateRow) -> None:
        """Write a template that the run uses, where it is missing."""
        await self.writer.call(writing.add_templates, self.engine, [row])
