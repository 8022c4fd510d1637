"""Step: carry all materials of one step of a run through render, look-up and live requests into the ledger.

Pages are read, rendered and looked up while requests are in flight.
"""

import asyncio
from collections.abc import Sequence

from db.ledger.clock import new_id
from flows.engine.context import Paged, StepContext, StepTasks
from flows.engine.generations import Recording
from flows.engine.live import LiveChannel
from flows.engine.materials.handles import Material
from flows.engine.materials.items import Item
from flows.engine.plan import plan_page
from flows.errors import CostCapError, RecordError, StoppedError, StoppingCallError, copy_of
from flows.steps.prompts.render import Brief, Prompt, render_prompt

YIELD_EVERY = 50
"""Materials rendered before the event loop gets its turn."""


class Step:
    """One step of a run: its brief, and how many answers (`variants`) each material gets to the same request."""

    def __init__(self, context: StepContext, brief: Brief, variants: int = 1) -> None:
        self._context = context
        self._brief = brief
        self._variants = variants
        self._tasks = StepTasks(context.pace.stop)
        self._recording = Recording(context, brief.template)
        self._live = LiveChannel(context, brief, self._recording, self._tasks)
        self._page_written: asyncio.Task[None] | None = None

    async def run(self, source: Paged) -> None:
        """Generate for all materials; raises what stopped the run when all that was in flight is recorded."""
        self._context.pace.breaker(self._brief.template.name).send_probe = self._live.send_last
        try:
            async for page in source.pages(self._brief.template.reads):
                await self._live.send(await self._misses(await self._rendered(page)))
                if self._tasks.failure is not None:
                    break
        finally:
            await self._tasks.join()
            if self._tasks.failure is None:
                await self._context.writer.committed()
        failure = self._tasks.failure or self._stopped_by()
        if failure is not None:
            raise failure

    def _stopped_by(self) -> StoppingCallError | None:
        """What has stopped the run, where the last requests did, so that no other was left to raise it."""
        pace = self._context.pace
        stopped = pace.stopped or pace.breaker(self._brief.template.name).reason_at_end()
        return None if stopped is None or isinstance(stopped, CostCapError | StoppedError) else copy_of(stopped)

    async def _rendered(self, page: Sequence[Material]) -> list[Item]:
        items: list[Item] = []
        for number, material in enumerate(page, start=1):
            items += self._items_of(material)
            if number % YIELD_EVERY == 0:
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
                self._recording.unrendered(own_key, material, error)
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

    async def _misses(self, items: Sequence[Item]) -> list[Item]:
        """Look items up, write what needs no request, and return what is to be asked for."""
        hashes = [item.prompt.hash for item in items]
        known = await self._context.ledger.known(hashes)
        bad = await self._context.ledger.bad_outcomes(hashes)
        plan = plan_page(items, known, bad, give_up_after=self._context.settings.give_up_after)
        self._recording.hits(plan.hits)
        for item, outcome in plan.ended_badly:
            self._recording.bad_outcome(item, outcome)
        for item, history in plan.given_up:
            self._recording.given_up(item, history)
        if plan.hits or plan.ended_badly or plan.given_up:
            # The next page is read meanwhile, so that no more than two pages of rows wait in memory.
            before, self._page_written = self._page_written, self._tasks.start(self._context.writer.committed())
            if before is not None:
                await before
        return plan.misses
