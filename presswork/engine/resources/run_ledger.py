"""Give one run its view of the ledger: recover from crashed runs when it opens, then look up and claim prompts.

While the ledger is unavailable, every read and claim of an open run waits.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import DatabaseError, LedgerUnreachableError
from db.ledger import leases, lifecycle, ranges, spill, writing
from db.ledger.refused_rows import RefusedRow, in_words
from db.ledger.rows import RunRow, StepRow, TemplateRow
from db.readers.chains import Spent, spent_by_chain, spent_by_leases, spent_by_run
from db.readers.look_up import PromptHistory, look_up
from db.readers.past_answers import answers_by_model, mean_tokens
from db.readers.runs import read_run
from db.readers.stored_generations import count_padded_keys
from db.readers.what_stands import OwnOutcome, Standing, read_own_outcomes, read_standing
from db.rollups.marks import roll_up_ended
from db.search.indexing import index_closed
from db.session import is_unavailable, is_unwritable, readable_url, reason_of
from db.words import HELPER, NOT_OVER
from presswork.engine.resources.lease import HeldLease
from presswork.engine.resources.writer import Writer
from presswork.errors import ConfigurationError, LedgerAwayError, RunEndedError
from presswork.options import Helper
from presswork.pacing.spending import Answers
from presswork.prices import Usage

_log = logging.getLogger("prefect.presswork")
ADDING_UP_S = 10.0
"""How long the beginning of a run waits at most until ended runs are added up, of which there may be many."""
INDEXING_S = 10.0
"""How long the end of a run waits at most until words are indexed; the next run indexes the others."""


@dataclass
class RunLedger:
    """Looks up prompts and records, claims prompts, and returns the run's usage.

    With `has_past`, other processes have worked or are working on the run, so it may have outcomes. `fresh_since` is
    when a refresh began: older answers are ignored.
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
        """The id of this process's lease on the run."""
        return self.lease.id

    @property
    def helper_id(self) -> str | None:
        """The lease's id if this process is a helper, else None."""
        return self.lease.id if self.lease.is_helper else None

    async def known(self, hashes: Iterable[str]) -> Mapping[str, PromptHistory]:
        """Return the histories of prompts; for a refresh, only what is new since it began."""
        wanted = list(dict.fromkeys(hashes))
        return await self.writer.read(look_up, self.engine, wanted, since=self.fresh_since) if wanted else {}

    async def standing(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, Standing]:
        """Return the current content of records by their keys; `with_parents` adds the ids of its parents.

        For a refresh it has no answers, because only `known` has the new ones.
        """
        found = await self.writer.read(
            read_standing, self.engine, self.flow, step, self.endpoint, keys, with_parents=with_parents
        )
        if self.fresh_since is None:
            return found
        return {key: replace(standing, answer=None) for key, standing in found.items()}

    async def own_outcomes(self, step: str, keys: Sequence[str], *, with_parents: bool) -> Mapping[str, OwnOutcome]:
        """Return the run's own outcomes of records by their keys; `with_parents` adds the ids of their parents."""
        if not self.has_past and not self.lease.was_lost:
            return {}
        return await self.writer.read(
            read_own_outcomes, self.engine, self.run_id, step, keys, with_parents=with_parents
        )

    async def begin_step(self, row: StepRow) -> None:
        """Write that a step begins; a helper writes nothing, because its run does, nor does a superseded process."""
        if self.helper_id is None:
            await self.writer.call(self.lease.begin_step, row)

    async def end_step(self, row: StepRow) -> None:
        """Write that a step has ended; a helper or a superseded process writes nothing."""
        if self.helper_id is None:
            await self.writer.call(self.lease.end_step, row)

    async def take(self, hashes: Sequence[str]) -> set[str]:
        """Claim prompts, and return those that this run now holds."""
        return await self.writer.call(self.lease.take, hashes)

    async def ready(self, prompt_hash: str) -> None:
        """Wait until a request may be sent; raises ClaimLostError if the prompt must be claimed again first."""
        await self.lease.ready(prompt_hash)

    def release(self, prompt_hash: str) -> None:
        """Release a claim with the writer's next commit."""
        self.writer.release_claim(prompt_hash)
        self.lease.released(prompt_hash)

    async def mean_tokens(self, step: str, model: str) -> tuple[float, float] | None:
        """Return the mean input and output tokens of a model's earlier answers in a step."""
        return await self.writer.read(mean_tokens, self.engine, self.flow, step, self.endpoint, model)

    async def padded_keys(self, step: str) -> int:
        """Return how many records with content have a key that ends in a space."""
        return await self.writer.read(count_padded_keys, self.engine, self.flow, step, self.endpoint)

    async def divide(self, step: str, pages_of_keys: Callable[[], Iterator[Sequence[str]]]) -> None:
        """Divide a step among helpers, by the keys of its records."""
        self.has_past = True
        await self.writer.call(self.lease.led, lambda lease: ranges.divide(self.engine, lease, step, pages_of_keys()))

    async def take_range(self, step: str, size: int) -> list[str]:
        """Take the next free records of a divided step; none if none is free or another process has the run now."""
        return await self.writer.call(self.lease.take_range, step, size)

    async def finish_range(self, step: str, taken: Mapping[str, Sequence[str]]) -> set[str]:
        """Finish the taken records that have all their outcomes, and return their keys.

        `taken` maps each record's key to the keys of its outcomes.
        """
        known = await self.own_outcomes(step, [key for keys in taken.values() for key in keys], with_parents=False)
        done = [record for record, keys in taken.items() if all(key in known for key in keys)]
        if done:
            await self.writer.call(self.lease.finish_range, step, done)
        return set(done)

    async def spent(self) -> Spent:
        """Return what others spent on this run and on those that it resumes; for a helper, its own earlier costs."""
        if self.helper_id is not None:
            return await self.writer.read(spent_by_leases, self.engine, self.run_id, [self.helper_id])
        linked = await self.writer.read(spent_by_chain, self.engine, self.run_id)
        return linked + await self.writer.read(spent_by_run, self.engine, self.run_id, except_lease=self.lease_id)

    async def answers(self, step: str) -> list[Answers]:
        """Return what the run's answers for a step have used so far, by the model that gave them."""
        found = await self.writer.read(answers_by_model, self.engine, self.run_id, step)
        # The tokens are in the same order.
        return [Answers(model, count, Usage(*tokens), cost) for model, count, *tokens, cost in map(astuple, found)]

    async def index_words(self) -> None:
        """Index the words of closed runs, if the ledger has an index of words; a failure is only noted."""
        try:
            found = await asyncio.to_thread(index_closed, self.engine, INDEXING_S)
        except (SQLAlchemyError, DatabaseError, OSError) as error:
            reason = str(error) if isinstance(error, DatabaseError) else reason_of(error, self.engine.url)
            _log.info("The run's words are not indexed: %s A search reads its answers instead.", reason)
        else:
            if found is not None and found.left:
                _log.info("%s runs are not indexed yet. Run `presswork audit index` to index them.", found.left)

    async def finish_writing(self) -> None:
        """Commit the last rows, and import the run's own spill file if the ledger is available again.

        The end of the run releases its claims. Another run would then request what only a file has.
        """
        with suppress(LedgerAwayError):
            await self.writer.committed()
        for folder in self.writer.spill_folders if self.writer.spill is not None else ():
            path = folder / f"{self.run_id}{spill.SPILL_SUFFIX}"
            if path.exists():
                await self.writer.call(_import, self.engine, path)
        if self.writer.has_lost:
            await self.writer.call(self.lease.settle_lost)

    async def add_template(self, row: TemplateRow) -> None:
        """Write a template that the run uses, if it is missing."""
        await self.writer.call(writing.add_templates, self.engine, [row])


def begin(
    ledger: Engine, run: RunRow, lease_id: str, helper: Helper | None, spill_folders: Sequence[Path]
) -> leases.Lease:
    """Recover from crashed runs, then take a lease: on a new run, on the flow run's run, or on the run to help.

    The lease names the run. Raises RunEndedError if the run to help has ended, and LedgerUnreachableError if the ledger
    can't be written. The errors of a ledger that is only unavailable are raised unchanged, for the writer to wait.
    """
    try:
        recover_crashed_runs(ledger, spill_folders, but=lease_id)
        if helper is not None:
            return lifecycle.join_run(ledger, helper.run, lease_id, f"{HELPER} {helper.number}")
        return lifecycle.begin_or_resume(ledger, run, lease_id)
    except leases.SupersededError as error:
        raise RunEndedError(f"This helper has nothing to do: {error}.") from None
    except SQLAlchemyError as error:
        if is_unavailable(error) and not is_unwritable(error):
            raise
        raise LedgerUnreachableError(
            f"The ledger {readable_url(ledger.url)} can't be written: {reason_of(error, ledger.url)}. "
            "Check its permissions and free disk space."
        ) from None


def recover_crashed_runs(ledger: Engine, spill_folders: Sequence[Path], *, but: str) -> None:
    """End expired leases of other runs, import this ledger's spill files, and add up the runs that these changed.

    A damaged spill file is reported and kept.
    """
    leases.end_lapsed(ledger, except_lease=but)
    for path in [found for folder in spill_folders for found in spill.find_spills(folder)]:
        if not spill.belongs_to(ledger, path):
            continue
        _import(ledger, path)
    # After the spill files: their rows count in runs that have ended.
    try:
        roll_up_ended(ledger, ADDING_UP_S)
    except SQLAlchemyError as error:
        if is_unavailable(error):
            raise
        # No figure is wrong without rollups, so this must keep no run from beginning.
        _log.warning("An ended run could not be added up: %s.", reason_of(error, ledger.url))


def _import(ledger: Engine, path: Path) -> None:
    refused: list[RefusedRow] = []
    try:
        count = spill.recover(ledger, path, refused)
        _log.info("Imported %s generations from the spill file %s.", count, path.name)
        if refused:
            _log.warning("%s The original rows are saved in %s.", in_words(refused), spill.refused_file(path))
    except spill.SpillError as error:
        _log.warning("%s", error)


def require_run(ledger: Engine, helper: Helper, flow: str, endpoint: str) -> None:
    """Raise ConfigurationError if a helper's worker has a different ledger or endpoint from the run that it helps.

    Raises RunEndedError if that run has ended. A crashed or suspended run may be resumed, so its helpers may work.
    """
    row = read_run(ledger, helper.run)
    if row is None:
        raise ConfigurationError(
            f"This helper can't work: its run {helper.run} is not in this worker's ledger "
            f"({readable_url(ledger.url)}). Give all workers of a work pool the same PRESSWORK_DATABASE_URL."
        )
    if (row["flow"], row["endpoint"]) != (flow, endpoint):
        raise ConfigurationError(
            f"This helper can't work: its run {helper.run} has the flow {row['flow']!r} and the endpoint "
            f"{row['endpoint']!r}, but this worker has {flow!r} and {endpoint!r}. Give all workers of a work pool the "
            "same settings."
        )
    if row["status"] not in NOT_OVER:
        raise RunEndedError(f"The run {helper.run} has ended ({row['status']}), so this helper has nothing to do.")
