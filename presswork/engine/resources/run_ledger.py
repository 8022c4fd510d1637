"""The ledger as one run uses it: what earlier runs left behind is settled when it opens, and then it reads and claims.

Every read and claim of an open run waits for a ledger that is unavailable.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import LedgerUnreachableError
from db.ledger import leases, lifecycle, ranges, spill, writing
from db.ledger.refused_rows import RefusedRow, in_words
from db.ledger.rows import RunRow, TemplateRow
from db.readers.chains import Spent, spent_by_chain, spent_by_leases, spent_by_run
from db.readers.figures import TotalUsage, usage
from db.readers.look_up import PromptHistory, look_up
from db.readers.past_answers import mean_tokens
from db.readers.runs import read_run
from db.readers.stored_generations import count_padded_keys
from db.readers.what_stands import OwnOutcome, Standing, read_own_outcomes, read_standing
from db.session import is_unavailable, is_unwritable, readable_url, reason_of
from db.words import CRASHED, HELPER, RUNNING, SUSPENDED
from presswork.engine.resources.lease import HeldLease
from presswork.engine.resources.writer import Writer
from presswork.errors import ConfigurationError, RunEndedError
from presswork.options import Helper

_log = logging.getLogger("prefect.presswork")


@dataclass
class RunLedger:
    """Looks prompts and records up, claims prompts, and says what the run has used.

    `has_past` says whether others have worked on the run, or do just now: it may have outcomes already. `fresh_since`
    is when a run began that refreshes: what is older counts as not known.
    """

    engine: Engine
    writer: Writer
    lease: HeldLease
    run_id: str
    flow: str
    endpoint: str
    has_past: bool = False
    fresh_since: datetime | None = None

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

    async def own_outcomes(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, OwnOutcome]:
        """What the run has of records already, by their keys; `with_parents`, what that was made from too."""
        if not self.has_past and not self.lease.was_lost:
            return {}
        return await self.writer.read(
            read_own_outcomes, self.engine, self.run_id, step, keys, with_parents=with_parents
        )

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

    async def divide(self, step: str, pages_of_keys: Callable[[], Iterator[Sequence[str]]]) -> None:
        """Divide a step among helpers, by the keys of its records."""
        self.has_past = True
        await self.writer.call(lambda: ranges.divide(self.engine, self.run_id, step, pages_of_keys()))

    async def take_range(self, step: str, size: int) -> list[str]:
        """Take the next free records of a divided step; none where none is free, or the run is another's by now."""
        return await self.writer.call(self.lease.take_range, step, size)

    async def finish_range(self, step: str, taken: Mapping[str, Sequence[str]]) -> set[str]:
        """Finish those of the records taken that have their outcome, and return these.

        `taken` has for each of them the keys that its outcomes have.
        """
        known = await self.own_outcomes(step, [key for keys in taken.values() for key in keys], with_parents=False)
        done = [record for record, keys in taken.items() if all(key in known for key in keys)]
        if done:
            await self.writer.call(self.lease.finish_range, step, done)
        return set(done)

    async def spent(self) -> Spent:
        """What others have spent on this run and on those that it resumes; of a helper, what it has spent before."""
        if self.helper_id is not None:
            return await self.writer.read(spent_by_leases, self.engine, self.run_id, [self.helper_id])
        linked = await self.writer.read(spent_by_chain, self.engine, self.run_id)
        return linked + await self.writer.read(spent_by_run, self.engine, self.run_id, but_lease=self.lease_id)

    async def used(self, step: str) -> TotalUsage:
        """What a step has used so far."""
        return await self.writer.read(usage, self.engine, self.run_id, step=step)

    async def add_template(self, row: TemplateRow) -> None:
        """Write a template that the run uses, where it is missing."""
        await self.writer.call(writing.add_templates, self.engine, [row])


def begin(
    ledger: Engine, run: RunRow, lease_id: str, helper: Helper | None, spill_folders: Sequence[Path]
) -> leases.Lease:
    """Settle the past, and take a lease on a run: on a new one, on its flow run's, or as a helper on the run to help.

    The lease says which run it is. LedgerUnreachableError where the ledger can't be written; the error of one that may
    be back soon goes up as it is.
    """
    try:
        recover_crashed_runs(ledger, spill_folders, but=lease_id)
        if helper is not None:
            return lifecycle.join_run(ledger, helper.run, lease_id, f"{HELPER} {helper.number}")
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


def require_run(ledger: Engine, helper: Helper, flow: str, endpoint: str) -> None:
    """Raise ConfigurationError where a helper's worker has another ledger or endpoint than the run that it helps.

    RunEndedError where that run is over. One that has crashed may be taken up: what is done until then is done.
    """
    row = read_run(ledger, helper.run)
    if row is None:
        raise ConfigurationError(
            f"The run {helper.run}, which this one is to help, is not in this worker's ledger "
            f"({readable_url(ledger.url)}). Give all workers of a work pool the same PRESSWORK_DATABASE_URL."
        )
    if (row["flow"], row["endpoint"]) != (flow, endpoint):
        raise ConfigurationError(
            f"The run {helper.run} is one of {row['flow']!r} at the endpoint {row['endpoint']!r}, and this worker has "
            f"{flow!r} at {endpoint!r}. Give all workers of a work pool the same settings."
        )
    if row["status"] not in {RUNNING, CRASHED, SUSPENDED}:
        raise RunEndedError(f"The run {helper.run} has ended ({row['status']}): there is nothing left to help with.")
