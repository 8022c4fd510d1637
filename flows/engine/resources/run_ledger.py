"""The ledger as one run uses it: what earlier runs left behind is settled when it opens, and then it reads and claims.

Every read and claim of an open run waits for a ledger that is unavailable.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import LedgerUnreachableError
from db.ledger import leases, lifecycle, spill, writing
from db.ledger.refused_rows import RefusedRow, in_words
from db.ledger.rows import RunRow, TemplateRow
from db.readers.chains import Spent, spent_by_chain, spent_by_run
from db.readers.figures import TotalUsage, usage
from db.readers.look_up import PromptHistory, look_up
from db.readers.old_shards import shards_of
from db.readers.past_answers import mean_tokens
from db.readers.runs import read_run
from db.readers.stored_generations import count_padded_keys
from db.readers.what_stands import OwnOutcome, Standing, read_own_outcomes, read_standing
from db.session import is_unavailable, is_unwritable, readable_url, reason_of
from db.words import HELPER
from flows.engine.options import Shard
from flows.engine.resources.lease import HeldLease
from flows.engine.resources.writer import Writer
from flows.errors import ConfigurationError

_log = logging.getLogger("prefect.presswork")


@dataclass
class RunLedger:
    """Looks prompts and records up, claims prompts, and says what the run has used.

    `has_past` says whether others have worked on the run, or do just now: it may have outcomes already. `fresh_since`
    is when a run began that refreshes: what is older counts as not known. `shards` are the runs that this one was
    spread over, None before that.
    """

    engine: Engine
    writer: Writer
    lease: HeldLease
    run_id: str
    flow: str
    endpoint: str
    has_past: bool = False
    fresh_since: datetime | None = None
    shards: Sequence[str] | None = None

    @property
    def lease_id(self) -> str:
        """Who works on the run here."""
        return self.lease.id

    @property
    def helper_id(self) -> str | None:
        """The same where that is a helper, else None."""
        return self.lease.id if self.lease.is_helper else None

    async def known(self, hashes: Iterable[str]) -> Mapping[str, PromptHistory]:
        """What is known of prompts; where the run refreshes, only what is new since it began."""
        wanted = list(set(hashes))
        return await self.writer.read(look_up, self.engine, wanted, since=self.fresh_since) if wanted else {}

    async def standing(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, Standing]:
        """What stands for records, by their keys; `with_parents`, what it was made from too.

        Where the run refreshes, it answers no prompt: `known` says what is new.
        """
        found = await self.writer.read(
            read_standing, self.engine, self.flow, step, self.endpoint, keys, with_parents=with_parents
        )
        if self.fresh_since is None:
            return found
        return {key: replace(standing, answer=None) for key, standing in found.items()}

    async def own_outcomes(self, step: str, keys: Sequence[str]) -> Mapping[str, OwnOutcome]:
        """What the run has of records already, by their keys."""
        return await self.writer.read(read_own_outcomes, self.engine, self.run_id, step, keys) if self.has_past else {}

    async def begin_step(self, step: str, *, made_from: str | None, total: int | None, left_out: int) -> None:
        """Write that a step begins; of a helper's steps the run that is helped tells."""
        if self.helper_id is None:
            begin = partial(lifecycle.begin_step, made_from=made_from, total=total, left_out=left_out)
            await self.writer.call(begin, self.engine, self.run_id, step)

    async def end_step(self, step: str) -> None:
        """Write that a step has been gone through."""
        if self.helper_id is None:
            await self.writer.call(lifecycle.end_step, self.engine, self.run_id, step)

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
        """What others have spent on this run, and what the runs that it resumes have."""
        linked = await self.writer.read(spent_by_chain, self.engine, self.run_id)
        return linked + await self.writer.read(spent_by_run, self.engine, self.run_id, but_lease=self.lease_id)

    async def used(self, step: str) -> TotalUsage:
        """What a step has used so far."""
        return await self.writer.read(usage, self.engine, self.run_id, step=step)

    async def add_template(self, row: TemplateRow) -> None:
        """Write a template that the run uses, where it is missing."""
        await self.writer.call(writing.add_templates, self.engine, [row])


def begin(
    ledger: Engine, run: RunRow, lease_id: str, shard: Shard | None, spill_folders: Sequence[Path]
) -> leases.Lease:
    """Settle the past, and take a lease on a run: on a new one, on its flow run's, or as a helper on the shard's.

    The lease says which run it is. LedgerUnreachableError where the ledger can't be written; the error of one that may
    be back soon goes up as it is.
    """
    try:
        recover_crashed_runs(ledger, spill_folders, but=lease_id)
        if shard is not None:
            return lifecycle.join_run(ledger, shard.parent, lease_id, f"{HELPER} {shard.number}")
        return lifecycle.begin_or_take_up(ledger, run, lease_id)
    except SQLAlchemyError as error:
        if is_unavailable(error) and not is_unwritable(error):
            raise
        raise LedgerUnreachableError(
            f"The ledger {readable_url(ledger.url)} can't be written: {reason_of(error, ledger.url)}. "
            "Check its permissions and the space on its disk."
        ) from None


def recover_crashed_runs(ledger: Engine, spill_folders: Sequence[Path], *, but: str) -> None:
    """End leases of other runs that ran out, and import spill files of this ledger; a damaged one is named and kept."""
    leases.end_lapsed(ledger, but=but)
    for path in [found for folder in spill_folders for found in spill.find_spills(folder)]:
        if not spill.belongs_to(ledger, path):
            continue
        refused: list[RefusedRow] = []
        try:
            count = spill.recover(ledger, path, refused)
            _log.info("Imported %s generations that waited in %s.", count, path.name)
            if refused:
                _log.warning("%s As they were, they are kept in %s.", in_words(refused), spill.refused_file(path))
        except spill.SpillError as error:
            _log.warning("%s", error)


def require_parent(ledger: Engine, shard: Shard) -> None:
    """Raise ConfigurationError where a shard's worker has another ledger than the run that is spread."""
    if read_run(ledger, shard.parent) is None:
        raise ConfigurationError(
            f"The run {shard.parent}, of which this is a shard, is not in this worker's ledger "
            f"({readable_url(ledger.url)}). Give all workers of a work pool the same PRESSWORK_DATABASE_URL."
        )
