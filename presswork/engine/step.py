"""Process all materials of one step of a run: render, look up, request, record.

Pages are read, rendered and looked up while requests are in flight.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from db.clock import new_id
from db.readers.what_stands import OwnOutcome
from presswork.engine.context import Paged, StepContext, StepTasks
from presswork.engine.generations import Recording, Unrendered
from presswork.engine.live import LiveChannel
from presswork.engine.materials.handles import Material
from presswork.engine.materials.items import Item, standing_answers
from presswork.engine.plan import is_done, plan_page
from presswork.errors import CostCapError, RecordError, StoppedError, StoppingCallError, copy_of
from presswork.prompts.render import Brief, render_prompt

YIELD_EVERY = 50
"""Number of materials to render before the event loop gets its turn."""


class Draft(NamedTuple):
    """One variant of a material before it is rendered; `own` is as in Item."""

    key: str
    material: Material
    variant: int
    own: OwnOutcome | None


class Step:
    """One step of a run; each material gets `variants` answers to the same request."""

    def __init__(self, context: StepContext, brief: Brief, variants: int = 1) -> None:
        self._context = context
        self._brief = brief
        self._variants = variants
        self._tasks = StepTasks(context.pace.stop)
        self._recording = Recording(context, brief.template)
        self._live = LiveChannel(context, brief, self._recording, self._tasks)
        self._page_written: asyncio.Task[None] | None = None

    async def run(self, source: Paged) -> None:
        """Generate for all materials; once all requests in flight are recorded, raises what stopped the run."""
        self._context.pace.breaker(self._brief.template.name).send_probe = self._live.send_last
        try:
            async for page in source.pages(self._brief.template.reads):
                await self._live.send(await self._misses(await self._open(page)))
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
        """Return what stopped the run, if the last requests did: then no later request raises it."""
        pace = self._context.pace
        stopped = pace.stopped or pace.breaker(self._brief.template.name).reason_at_end()
        return None if stopped is None or isinstance(stopped, CostCapError | StoppedError) else copy_of(stopped)

    async def _open(self, page: Sequence[Material]) -> list[Draft]:
        """Return the drafts of a page, except those that an earlier pass of the run has done."""
        template = self._brief.template
        wanted = [
            (key, material, variant)
            for material in page
            for variant, key in enumerate(self._keys_of(material))
            if material.variants is None or variant in material.variants
        ]
        own = await self._context.ledger.own_outcomes(
            template.name, [key for key, *_ in wanted], with_parents=any(material.parents for material in page)
        )
        most_paid = self._context.policy.paid_requests
        drafts = []
        for key, material, variant in wanted:
            outcome = own.get(key)
            if outcome is not None and is_done(outcome, material, template.hash, most_paid=most_paid):
                self._recording.done(outcome)
            else:
                # A confirmed outcome is not a row of this run, so the new row replaces none.
                drafts.append(Draft(key, material, variant, None if outcome and outcome.confirmed else outcome))
        return drafts

    def _keys_of(self, material: Material) -> list[str]:
        # Only a fan-in has no key. The key of a record may be the empty text.
        of_record = material.record is not None or material.fault is not None
        key = material.key if of_record else material.key or self._brief.template.key
        return [f"{key}/{variant}" for variant in range(self._variants)] if self._variants > 1 else [key]

    async def _rendered(self, drafts: Sequence[Draft]) -> tuple[list[Item], list[Unrendered]]:
        items: list[Item] = []
        failed: list[Unrendered] = []
        for number, draft in enumerate(drafts, start=1):
            # Ids are in the order of the records, because lists are ordered by id.
            generation_id = new_id()
            try:
                items.append(self._item_of(draft, generation_id))
            except RecordError as error:
                failed.append(Unrendered(generation_id, draft.key, draft.material, error, draft.own))
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return items, failed

    def _item_of(self, draft: Draft, generation_id: str) -> Item:
        material = draft.material
        if material.fault is not None:
            raise material.fault
        return Item(
            generation_id=generation_id,
            record_key=draft.key,
            record=material.record,
            prompt=render_prompt(self._brief, material.inputs, variant=draft.variant),
            parents=material.parents,
            own=draft.own,
        )

    async def _misses(self, drafts: Sequence[Draft]) -> list[Item]:
        """Render and look up, write the outcomes that need no request, and return the items to request."""
        ledger, name = self._context.ledger, self._brief.template.name
        with_parents = any(draft.material.parents for draft in drafts)
        standing, (items, failed) = await asyncio.gather(
            ledger.standing(name, [draft.key for draft in drafts], with_parents=with_parents), self._rendered(drafts)
        )
        for item in items:
            item.standing = standing.get(item.record_key)
        known = standing_answers(items)
        known |= await ledger.known([item.prompt.hash for item in items if item.prompt.hash not in known])
        plan = plan_page(items, known, give_up_after=self._context.settings.give_up_after)
        self._recording.hits(plan.hits)
        for each in failed:
            self._recording.unrendered(each, standing.get(each.key))
        for item, history in plan.skipped:
            self._recording.skipped(item, history)
        for own in plan.left:
            self._recording.done(own)
        if plan.hits or plan.skipped or failed:
            # The next page is read meanwhile. Waiting for the earlier commit keeps at most two pages in memory.
            before, self._page_written = self._page_written, self._tasks.start(self._context.writer.committed())
            if before is not None:
                await before
        return plan.misses
