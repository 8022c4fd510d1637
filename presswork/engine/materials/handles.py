"""Handles: what flows pass from step to step. They hold no rows: each pages from a spool or from the ledger.

`run.select()` gives Selected, `run.generate()` gives Generations; `.where()` keeps some, `.together()` makes all of
them one. A handle yields materials: what one prompt is made from. All have `step`, whose generations these are (None
where they are records), and `params`, the values of the select that all of these come from; `count()` tells how many
materials there will be where that is known without reading them, `pages()` yields them by the names that the template
reads, and `left_out()` counts the records that are missing because an earlier step brought no content for them.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from sqlalchemy import Engine

from db.readers.figures import count_generations
from db.readers.stored_generations import StepGeneration, read_generations, read_parents
from db.sources.spool import Spool, Unreadable
from db.sources.statements import Query
from db.sources.values import Record, make_record
from db.words import SUCCEEDED, UNREADABLE
from presswork.engine.materials.conditions import Condition, Generated, judged
from presswork.errors import RecordError
from presswork.output_classes.validate import OutputClass

P = ParamSpec("P")
T = TypeVar("T")
PAGE = 1000  # records read, rendered and looked up at a time
_FURTHEST = 10  # steps back that an output is looked for
_log = logging.getLogger("prefect.presswork")


@dataclass(frozen=True, slots=True)
class Material:
    """What one prompt is made from: a record or none, the outputs of earlier steps by name, and their ids.

    A `fault` says why there can be no prompt.
    """

    key: str
    record: Record | None
    inputs: Mapping[str, Any]
    parents: tuple[str, ...] = ()
    fault: RecordError | None = None


class Read(Protocol):
    """Calls in a thread what reads a spool (SourceReader.work) or the ledger (Writer.read, which waits for it)."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns."""


@dataclass(eq=False, repr=False)
class Selected:
    """Records of a template's select. The database is asked at the first `await`, in a thread.

    `find` makes the spool of its records, with the right keys, and `read` pages through it; `tell` hears how many
    there are, once. `params` are the values that the records were selected with. A flow may select by one template
    several times: `nth` counts.
    """

    query: Query
    find: Callable[[], Awaitable[Spool]]
    read: Read
    tell: Callable[[int], None]
    params: Mapping[str, Any]
    nth: int = 1
    step: None = field(default=None, init=False)
    _spool: Spool | None = field(default=None, init=False)
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def check(self) -> Spool:
        """Read the records and check their keys, unless that is done.

        Raises the database error of a source that can't be reached, of a select that fails or of keys that don't tell
        records apart, and StoppedError where the run is stopped.
        """
        async with self._checking:
            if self._spool is None:
                self._spool = await self.find()
                self.tell(self._spool.count)
            return self._spool

    async def count(self) -> int:
        """How many records there are."""
        return (await self.check()).count

    async def left_out(self) -> int:
        """None: records come first."""
        return 0

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the records in the select's own order, a page at a time."""
        pages = (await self.check()).pages(PAGE)
        async for page in _ahead(self.read, pages):
            yield [material_of(record) for record in page]


@dataclass(frozen=True)
class Generations:
    """The succeeded generations of a step in this run; `read` calls what reads the ledger in a thread.

    A helper works on its own alone: `helper_id` is its lease.
    """

    ledger: Engine
    run_id: str
    step: str
    output_class: OutputClass
    conditions: tuple[Condition, ...] = field(default=())
    read: Read = asyncio.to_thread
    params: Mapping[str, Any] = field(default_factory=dict)
    helper_id: str | None = None

    def where(self, condition: Condition) -> "Generations":
        """Keep those for which the condition holds: `triaged.where(lambda t: t.output.urgent)`.

        One on which it fails is a failed record of the step that works on what is kept.
        """
        return replace(self, conditions=(*self.conditions, condition))

    def together(self) -> "Together":
        """Make all of them one material, for a step that reads them as a list."""
        return Together(self)

    async def count(self) -> int | None:
        """How many there are; unknown before a condition has seen them, and to a helper."""
        return None if self.conditions or self.helper_id else await self._counted(succeeded=True)

    async def left_out(self) -> int:
        """How many records this step brought no content for; a helper leaves that to its run."""
        return 0 if self.helper_id else await self._counted(succeeded=False)

    async def __aiter__(self) -> AsyncIterator[Generated]:
        async for page in self._stored():
            for generation in page:
                try:
                    seen = judged(generation, self.output_class, self.conditions)
                except RecordError as error:
                    # No step works on them here, in which the record could fail. Prefect hears of ids alone.
                    _log.warning("%s: the generation %s is left out. %s", self.step, generation.id, error)
                    continue
                if seen is not None:
                    yield seen

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield each with the outputs that lead to it, as far as the template reads them."""
        async for kept, failed in self.judged_pages():
            inputs = await self.read(outputs_leading_to, self.ledger, kept, needs)
            yield failed + [_material_of(generation, inputs[generation.id]) for generation in kept]

    async def judged_pages(self) -> AsyncIterator[tuple[list[StepGeneration], list[Material]]]:
        """Yield pages of what the conditions keep, and of what they fail on."""
        async for page in self._stored():
            kept, failed = [], []
            for generation in page:
                try:
                    if not self.conditions or judged(generation, self.output_class, self.conditions) is not None:
                        kept.append(generation)
                except RecordError as error:
                    failed.append(_material_of(generation, {}, error))
            yield kept, failed

    async def _counted(self, *, succeeded: bool) -> int:
        lines = await self.read(count_generations, self.ledger, self.run_id)
        return sum(line.count for line in lines if line.step == self.step and (line.status == SUCCEEDED) == succeeded)

    def _stored(self) -> AsyncIterator[list[StepGeneration]]:
        pages = read_generations(self.ledger, self.run_id, self.step, page_size=PAGE, lease_id=self.helper_id)
        return _ahead(self.read, pages)


@dataclass(frozen=True)
class Together:
    """All generations of a step as one material: its template reads them as a list, by the step's name."""

    generations: Generations

    @property
    def step(self) -> str:
        """The step whose generations these are."""
        return self.generations.step

    @property
    def params(self) -> Mapping[str, Any]:
        """The values of the select that they come from."""
        return self.generations.params

    async def count(self) -> int | None:
        """One; unknown before a condition has seen them, for each on which it fails is a failed record."""
        return None if self.generations.conditions else 1

    async def left_out(self) -> int:
        """How many records the step brought no content for."""
        return await self.generations.left_out()

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the one material, or none where there is nothing to put together; before it, those that failed."""
        collected: list[StepGeneration] = []
        async for kept, failed in self.generations.judged_pages():
            collected += kept
            if failed:
                yield failed
        if not collected:
            return
        inputs: dict[str, Any] = {}
        if needs - {self.step}:
            each = await self.generations.read(outputs_leading_to, self.generations.ledger, collected, needs)
            for found in each.values():
                inputs |= found
        inputs[self.step] = [generation.output for generation in collected]
        yield [Material("", None, inputs, tuple(generation.id for generation in collected))]


Source: TypeAlias = Selected | Generations | Together
"""Anything that `run.generate()` can work on."""


def outputs_leading_to(
    ledger: Engine, generations: Sequence[StepGeneration], needs: frozenset[str]
) -> dict[str, dict[str, Any]]:
    """Return, for each generation's id, the outputs on its path by step name: its own, and those `needs` asks for.

    A step with several generations on the path (a fan-in) gives a list.
    """
    inputs: dict[str, dict[str, Any]] = {found.id: {found.step: found.output} for found in generations}
    roots = {found.id: {found.id} for found in generations}
    for _step in range(_FURTHEST):
        missing = needs - {"record", "params"} - {name for found in inputs.values() for name in found}
        if not missing or not roots:
            break
        above = defaultdict[str, set[str]](set)
        for child, parents in read_parents(ledger, list(roots)).items():
            by_step = defaultdict[str, list[Any]](list)
            for parent in parents:
                by_step[parent.step].append(parent.output)
                above[parent.id] |= roots[child]
            for root in roots[child]:
                for step, outputs in by_step.items():
                    inputs[root].setdefault(step, outputs[0] if len(outputs) == 1 else outputs)
        roots = above
    return inputs


def material_of(record: Record | Unreadable) -> Material:
    """Make a material of a record."""
    if isinstance(record, Unreadable):
        return Material(record.key, None, {}, fault=RecordError(record.fault, kind=UNREADABLE))
    return Material(record.key, record, {"record": record.data})


def _material_of(generation: StepGeneration, inputs: Mapping[str, Any], fault: RecordError | None = None) -> Material:
    key, data, parents = generation.record_key, generation.record, (generation.id,)
    if data is None:
        return Material(key, None, inputs, parents, fault)
    return Material(key, make_record(key, data), {"record": data, **inputs}, parents, fault)


async def _ahead(read: Read, pages: Iterator[T]) -> AsyncIterator[T]:
    """Yield pages until there is none, and read the next one already while this one is worked on."""
    ahead = asyncio.ensure_future(read(next, pages, None))
    try:
        while (page := await ahead) is not None:
            ahead = asyncio.ensure_future(read(next, pages, None))
            yield page
    finally:
        ahead.cancel()
        # Where a stop has ended it, nobody waits for its error any more.
        ahead.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
