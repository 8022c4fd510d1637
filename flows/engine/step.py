"""Generate: carries all materials of one step through render, look-up, chunks and record.

Pages are read, rendered and looked up while requests are in flight. A bounded window of prompts is open at a time,
so that memory does not grow with the number of records, and wide enough that one slow answer never leaves the
endpoint idle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from prefect import State

from db.ledger.clock import new_id, now
from db.ledger.rows import GenerationRow, RecordRow
from db.readers.past_answers import mean_tokens
from db.words import CACHE, REFUSED_BY_LEDGER
from flows.engine.attempts import ItemJournal
from flows.engine.generations import GenerationRows, add_prompt, add_record
from flows.engine.materials.handles import Material, Source
from flows.engine.orchestration.chunks import Chunk, InterruptedChunkError
from flows.engine.pacing.estimates import Estimate
from flows.engine.plan import Hit, Item, Plan, plan_page, take_over
from flows.errors import CostCapError, LedgerAwayError, RecordError, StoppedError, StoppingCallError, copy_of
from flows.steps.answers.asking import Asking
from flows.steps.answers.outcomes import Outcome
from flows.steps.answers.pursuing import answer_prompt
from flows.steps.prompts.render import Brief, Prompt, render_prompt

if TYPE_CHECKING:
    from flows.engine.run import Run

FEW = 100
"""Up to so many misses in a first page, each prompt gets a task run of its own, to be looked at in the UI."""
MANY_SIZE = 50
WINDOW = 3
"""Prompts open at a time, as a multiple of the concurrency: room for write-ahead and commit around each request."""
MOST_WAITING = 2000
"""Prompts that another run is asking for, at most, before this one stops reading ahead."""
ASK_AGAIN_S = (0.2, 3.0)
"""How often the ledger is asked for another run's answers: at first, and at the longest."""

_IGNORES_SCHEMA = (
    "The endpoint {endpoint!r} seems to ignore `output_config`: JSON came in a fence or in a sentence, and was taken "
    "out of it. Check whether the gateway passes the field on."
)


class Generating:
    """One step of a run at work."""

    def __init__(self, run: Run, brief: Brief, variants: int) -> None:
        self._run = run
        self._brief = brief
        self._variants = variants
        self._rows = GenerationRows(run_id=run.id, flow=run.flow, endpoint=run.endpoint.name, template=brief.template)
        self._chunk_size = run.options.chunk_size or run.settings.chunk_size
        self._chunks = 0
        self._room = _Room(WINDOW * (run.options.concurrency or run.settings.concurrency))
        self._knows_model = False
        self._max_output: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        # Prompts that are being asked just now, with the items that wait for the same answer.
        self._twins: dict[str, list[Item]] = {}
        # Those whose claims were lost while this run was away.
        self._lost: list[Item] = []
        self._waiting = 0
        # What was read and is not being asked yet, in the order in which it will be.
        self._unsent: list[deque[Item]] = []
        self._page_written: asyncio.Task[None] | None = None

    async def all_of(self, source: Source) -> None:
        """Generate for all materials; raises what stopped the run when all that was in flight is recorded."""
        await self._learn()
        self._run.pace.breaker(self._brief.template.name).watch(self._send_one_from_further_on)
        try:
            async for page in source.pages(self._brief.template.reads):
                items = await self._render(page)
                plan = await self._plan(items)
                await self._record_planned(plan)
                await self._send(plan.misses)
                if self._failure is not None:
                    break
        finally:
            while self._tasks:
                await asyncio.gather(*self._tasks)
            if self._failure is None:
                await self._run.writer.committed()
        self._failure = self._failure or self._unsaid()
        if self._failure is not None:
            raise self._failure

    def _unsaid(self) -> StoppingCallError | None:
        """What has stopped the run, where the last requests did, so that no other was left to raise it."""
        stopped = self._run.pace.stopped or self._run.pace.breaker(self._brief.template.name).reason_at_end()
        return None if stopped is None or isinstance(stopped, CostCapError | StoppedError) else copy_of(stopped)

    async def _learn(self) -> None:
        """Take over what the ledger knows of this template's answers, for pace and cost."""
        model = self._brief.template.front.model
        mean = await self._run.writer.read(
            mean_tokens, self._run.ledger, self._run.flow, self._brief.template.name, self._run.endpoint.name, model
        )
        if mean is not None:
            self._run.pace.know(self._brief.template.name, Estimate(input_tokens=mean[0], output_tokens=mean[1]))

    # Render

    async def _render(self, page: Sequence[Material]) -> list[Item]:
        items: list[Item] = []
        for number, material in enumerate(page):
            items += self._items_of(material)
            if number % 50 == 49:
                await asyncio.sleep(0)
        return items

    def _items_of(self, material: Material) -> list[Item]:
        # Only a fan-in has no key of its own: a record may have the empty text for one.
        of_record = material.record is not None or material.fault is not None
        key = material.key if of_record else material.key or self._brief.template.key
        record = material.record
        items = []
        for variant in range(self._variants):
            own_key = f"{key}/{variant}" if self._variants > 1 else key
            try:
                prompt = self._prompt_of(material, variant)
            except RecordError as error:
                self._record_unasked(own_key, material, error)
                continue
            items.append(
                Item(
                    generation_id=new_id(),
                    record_key=own_key,
                    record_hash=record.hash if record else None,
                    record_body=record.body if record else None,
                    prompt=prompt,
                    parents=material.parents,
                )
            )
        return items

    def _prompt_of(self, material: Material, variant: int) -> Prompt:
        if material.fault is not None:
            raise material.fault
        return render_prompt(self._brief, material.inputs, variant=variant)

    def _record_unasked(self, key: str, material: Material, error: RecordError) -> None:
        record = material.record
        if record is not None:
            self._run.writer.add_record(RecordRow(record.hash, record.body))
        row = self._rows.without_request(
            key=key,
            record_hash=record.hash if record else None,
            prompt_hash=None,
            status="failed",
            kind=error.kind,
            message=str(error),
        )
        self._run.writer.add_generation(row, material.parents)
        self._run.progress.add("failed")

    # Look up

    async def _plan(self, items: Sequence[Item]) -> Plan:
        known = await self._run.writer.read(self._run.known_of, items)
        plan = plan_page(items, known, give_up_after=self._run.settings.give_up_after)
        return take_over(plan, await self._run.writer.read(self._run.bad_outcomes, items))

    async def _record_planned(self, plan: Plan) -> None:
        self.record_hits(plan.hits)
        for item, bad in plan.ended_badly:
            self._add(item, self._rows.ended_badly(item, bad))
            self._run.progress.add(bad.status)
        for item, history in plan.given_up:
            self._add(
                item,
                self._rows.without_request(
                    key=item.record_key,
                    record_hash=item.record_hash,
                    prompt_hash=item.prompt.hash,
                    status="skipped",
                    kind="given_up",
                    message=f"This prompt was answered {history.bad_outcomes} times without content "
                    f"(last: {history.last_bad}); it is not asked again until --refresh.",
                    generation_id=item.generation_id,
                ),
            )
            self._run.progress.add("skipped")
        if plan.hits or plan.given_up or plan.ended_badly:
            # The next page is read meanwhile, so that no more than two pages of rows wait in memory.
            before, self._page_written = self._page_written, self._start(self._run.writer.committed())
            if before is not None:
                await before

    def record_hits(self, hits: Sequence[Hit]) -> None:
        """Write rows that point at the generations that have the text."""
        moment = now()
        for hit in hits:
            self._add(hit.item, self._rows.reused(hit, moment), with_record=not hit.same_record)
        self._run.progress.add("cached", len(hits))

    # Complete

    async def _send(self, misses: Sequence[Item]) -> None:
        if misses and not self._knows_model:
            model, self._knows_model = await self._run.learn_model(self._brief), True
            self._max_output = model.max_output if model else None
        if self._chunk_size is None and misses:
            self._chunk_size = 1 if len(misses) <= FEW else MANY_SIZE
        leaders = [item for item in misses if not self._wait_as_twin(item)]
        mine, others = await self._claim(leaders)
        await self._send_chunks(mine)
        if others:
            await self._not_too_many_waiting()
            self._start(self._await_others(others))

    async def _not_too_many_waiting(self) -> None:
        while self._waiting >= MOST_WAITING and self._failure is None:
            await asyncio.wait(self._tasks, timeout=ASK_AGAIN_S[1], return_when=asyncio.FIRST_COMPLETED)

    async def _claim(self, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """Claim prompts and return the items to ask for, and those that another run is asking for.

        What was answered since the look-up is recorded.
        """
        hashes = [item.prompt.hash for item in items]
        owned = await self._run.writer.call(self._run.lease.take, hashes)
        mine = [item for item in items if item.prompt.hash in owned]
        others = [item for item in items if item.prompt.hash not in owned]
        # Asked once more now that no one else can be asking: the answer may have come in between.
        return await self._unanswered(mine), others

    async def _unanswered(self, items: Sequence[Item]) -> list[Item]:
        """Record what the ledger answers by now, and return the rest."""
        hits = await self.hits_of(items)
        self._record_found(hits)
        answered = {hit.item.generation_id for hit in hits}
        return [item for item in items if item.generation_id not in answered]

    def _record_found(self, hits: Sequence[Hit]) -> None:
        """Record what the ledger turned out to answer, for the items that wait for the same prompt too."""
        self.record_hits(hits)
        for hit in hits:
            self._release(hit.item)
            twins = self._twins.pop(hit.item.prompt.hash, [])
            self.record_hits([Hit(twin, hit.source_id, hit.output_hash) for twin in twins])

    def _leave_to_another(self, item: Item) -> None:
        """Look an item up and claim it again, with all others whose claims were lost, or wait for who has it now."""
        self._room.give(1)
        self._lost.append(item)
        if len(self._lost) == 1:
            self._start(self._await_lost())

    async def _await_lost(self) -> None:
        await asyncio.sleep(ASK_AGAIN_S[0])
        lost, self._lost = self._lost, []
        await self._await_others(lost)

    async def _await_others(self, items: Sequence[Item]) -> None:
        """Wait for what other runs are asking; take over what they give up."""
        waiting, pause = list(items), ASK_AGAIN_S[0]
        self._waiting += len(waiting)
        try:
            with self._run.stopper.pursuing():
                while waiting and self._failure is None:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, ASK_AGAIN_S[1])
                    mine, left = await self._claim(await self._unanswered(waiting))
                    self._waiting += len(left) - len(waiting)
                    waiting = left
                    await self._send_chunks(mine)
        finally:
            self._waiting -= len(waiting)

    async def _send_chunks(self, items: Sequence[Item]) -> None:
        size = self._chunk_size or 1
        unsent = deque(items)
        self._unsent.append(unsent)
        while unsent:
            part = [unsent.popleft() for _ in range(min(size, len(unsent)))]
            if isinstance(self._run.pace.stopped, CostCapError):
                await self._skip(part, self._run.pace.stopped)
                continue
            await self._room.take(len(part))
            if self._failure is not None:
                break
            self._start_chunk(part)
        self._unsent.remove(unsent)

    def _start_chunk(self, part: Sequence[Item]) -> None:
        self._chunks += 1
        chunk = Chunk(self, part, number=self._chunks, tries=self._run.settings.chunk_retries + 1)
        self._start(self._carry(chunk))

    def _send_one_from_further_on(self) -> str | None:
        """Send the last of what was read and is not being asked yet; return its prompt's hash, None without one."""
        for unsent in reversed(self._unsent):
            if unsent:
                item = unsent.pop()
                # Whether there is room for it or not: the others wait for it.
                self._room.give(-1)
                self._start_chunk([item])
                return item.prompt.hash
        return None

    async def _skip(self, items: Sequence[Item], reason: CostCapError) -> None:
        for item in items:
            self._room.give(-1)
            await self.record(item, Outcome("skipped", None, reason.kind, str(reason)), wait=False)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        running = asyncio.create_task(self._guarded(work))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        return running

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException as error:  # noqa: BLE001 - kept, and raised when the other chunks have ended
            if self._failure is None and isinstance(error, LedgerAwayError):
                self._run.pace.stop(StoppedError(str(error)))
            self._failure = self._failure or error

    def _wait_as_twin(self, item: Item) -> bool:
        """Whether the same prompt is being asked already; then its answer serves this item too."""
        if item.prompt.hash in self._twins:
            self._twins[item.prompt.hash].append(item)
            return True
        self._twins[item.prompt.hash] = []
        return False

    async def _carry(self, chunk: Chunk) -> None:
        try:
            # Only where Prefect waits for the next try is there anything to end: its prompts are ended one by one.
            with self._run.stopper.pursuing(chunk.pursuit):
                state = await self._run.run_chunk(chunk)
            if state.name == "Cached":
                self._record_found(chunk.hits)
                chunk.pending.clear()
                await self._run.writer.committed()
                self._room.give(len(chunk.items))
            elif not state.is_completed():
                await _raise_unless_interrupted(state)
        finally:
            self._room.give(len(chunk.pending))

    async def pursue(self, item: Item) -> Outcome | None:
        """Ask until there is an outcome (for the chunk); None where its claim was lost."""
        journal = ItemJournal(self._run, item)
        item.asking = item.asking or Asking(item.prompt, max_output=self._max_output)
        try:
            with self._run.stopper.pursuing() as pursuit:
                journal.pursuit = pursuit
                outcome = await answer_prompt(
                    item.asking, ask=journal.ask, gate=self._run.pace, journal=journal, policy=self._run.policy
                )
        except CostCapError as error:
            return Outcome("skipped", None, error.kind, str(error))
        if journal.claim_lost:
            self._leave_to_another(item)
            return None
        return outcome

    async def hits_of(self, items: Sequence[Item]) -> list[Hit]:
        """Look items up (for Prefect's cache too)."""
        return await self._run.writer.read(self._run.hits_of, items)

    # Record

    async def record(self, item: Item, outcome: Outcome, *, wait: bool = True) -> None:
        """Write an outcome, and those of the items that waited for it; returns when they are committed."""
        self._add(item, self._rows.answered(item, outcome, now()))
        self._release(item)
        self._run.progress.add(outcome.status)
        if outcome.content is not None and outcome.content.unwrapped:
            self._run.progress.note("unwrapped", _IGNORES_SCHEMA.format(endpoint=self._run.endpoint.name))
        self._record_twins(item, outcome)
        if wait:
            await self._run.writer.committed()
            outcome = self._as_written(item, outcome)
            # Who met the prompt during the commit could not find its answer yet, and has joined.
            while self._record_twins(item, outcome):
                await self._run.writer.committed()
        self._twins.pop(item.prompt.hash, None)
        self._room.give(1)

    def _as_written(self, item: Item, outcome: Outcome) -> Outcome:
        """Return the outcome, or a failure where the ledger refused its content."""
        failure = self._run.writer.failure_of(item.generation_id)
        if failure is None:
            return outcome
        self._run.progress.correct(outcome.status, "failed")
        return Outcome("failed", None, REFUSED_BY_LEDGER, failure)

    def _record_twins(self, item: Item, outcome: Outcome) -> int:
        """Write the outcome for the items that wait for it too, and return how many they were."""
        twins = self._twins.get(item.prompt.hash, [])
        for twin in twins:
            self._add(twin, self._rows.twin(twin, item, outcome, now()))
            self._run.progress.add("cached" if outcome.content else outcome.status)
        count = len(twins)
        twins.clear()
        return count

    def _release(self, item: Item) -> None:
        self._run.writer.release_claim(item.prompt.hash)
        self._run.lease.released(item.prompt.hash)

    def _add(self, item: Item, row: GenerationRow, *, with_record: bool = True) -> None:
        writer = self._run.writer
        if with_record:
            add_record(writer, item)
        # A prompt that was asked for came with its first attempt.
        if row.origin != CACHE and not item.attempts:
            add_prompt(writer, item.prompt)
        writer.add_generation(row, item.parents)


class _Room:
    """How many prompts may be open at a time; one chunk always fits."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = asyncio.Event()

    async def take(self, count: int) -> None:
        """Wait until there is any room, then take it."""
        while self._free <= 0:
            self._changed.clear()
            await self._changed.wait()
        self._free -= count

    def give(self, count: int) -> None:
        """Give room back."""
        self._free += count
        if count:
            self._changed.set()


async def _raise_unless_interrupted(state: State[Any]) -> None:
    error = await state.aresult(raise_on_failure=False)
    if not isinstance(error, InterruptedChunkError):
        raise error
