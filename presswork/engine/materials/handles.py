"""Define the handles that flows pass from step to step; they hold no rows, but page from a spool or the ledger.

`run.select()` returns Selected and `run.generate()` returns Generations; `.where()` filters them, and `.together()`
combines them into one. A handle yields materials, the inputs of one prompt each. Every handle has:
- `step`, whose generations these are, or None for records;
- `params`, the parameter values of the select behind them;
- `count()`, how many materials there are, if that is known without reading them;
- `pages()`, the materials with the inputs that a template reads;
- `left_out()`, how many records are missing because an earlier step produced no content for them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, Protocol, TypeVar

from sqlalchemy import Engine

from db.readers.figures import count_generations
from db.readers.stored_generations import StepGeneration, outputs_leading_to, read_generations
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
FIRST_PAGE = 200  # fewer at first, so that the first requests wait less; enough for two chunks
_log = logging.getLogger("prefect.presswork")


@dataclass(frozen=True, slots=True)
class Material:
    """The inputs of one prompt: a record or None, and the outputs of earlier steps by name, with the parents' ids.

    A `fault` is the reason why there can be no prompt. With `variants`, only these of the step's variants are wanted.
    """

    key: str
    record: Record | None
    inputs: Mapping[str, Any]
    parents: tuple[str, ...] = ()
    fault: RecordError | None = None
    variants: frozenset[int] | None = None


class Read(Protocol):
    """Calls a function in a thread that reads a spool (SourceReader.work) or the ledger (Writer.read)."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the function's result."""


@dataclass(eq=False, repr=False)
class Selected:
    """Records of a template's select, which is executed in a thread at the first `await`.

    `find` returns the spool of the records, with checked keys, and `read` pages through it. `tell` is called once with
    their number. `params` are the select's parameter values. A flow may select several times by one template; `nth`
    counts these selects.
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
        """Read the records and check their keys, once.

        Raises a database error if the source can't be reached, the select fails or keys are not unique, and
        StoppedError if the run is stopped.
        """
        async with self._checking:
            if self._spool is None:
                self._spool = await self.find()
                self.tell(self._spool.count)
            return self._spool

    async def count(self) -> int:
        """Return how many records there are."""
        return (await self.check()).count

    async def left_out(self) -> int:
        """Return 0: no step comes before the records."""
        return 0

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield pages of records in the select's order."""
        pages = (await self.check()).pages(PAGE, FIRST_PAGE)
        async for page in _ahead(self.read, pages):
            yield [material_of(record) for record in page]


@dataclass(frozen=True)
class Generations:
    """The succeeded generations of a step in this run; `read` calls a function in a thread to read the ledger.

    `helper_id` is a helper's lease: a helper sees only its own generations.
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
        """Keep the generations for which a condition holds: `triaged.where(lambda t: t.output.urgent)`.

        If the condition raises an error, the record fails in the next step.
        """
        return replace(self, conditions=(*self.conditions, condition))

    def together(self) -> "Together":
        """Combine all generations into one material, for a step that reads them as a list."""
        return Together(self)

    async def count(self) -> int | None:
        """Return how many there are; None with conditions, which must read them first, and for a helper."""
        return None if self.conditions or self.helper_id else await self._counted(succeeded=True)

    async def left_out(self) -> int:
        """Return how many records got no content in this step; 0 for a helper, whose run counts them."""
        return 0 if self.helper_id else await self._counted(succeeded=False)

    async def __aiter__(self) -> AsyncIterator[Generated]:
        async for page in self._stored():
            for generation in page:
                try:
                    seen = judged(generation, self.output_class, self.conditions)
                except RecordError as error:
                    # Here no step follows in which the record could fail. Prefect sees only ids.
                    _log.warning("%s: skipped the generation %s. %s", self.step, generation.id, error)
                    continue
                if seen is not None:
                    yield seen

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the generations with the outputs that they were made from, as far as the template reads those."""
        async for kept, failed in self.judged_pages():
            inputs = await self.read(outputs_leading_to, self.ledger, kept, needs)
            yield failed + [_material_of(generation, inputs[generation.id]) for generation in kept]

    async def judged_pages(self) -> AsyncIterator[tuple[list[StepGeneration], list[Material]]]:
        """Yield pages of the generations that the conditions keep, and of those on which a condition failed."""
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
    """All generations of a step as one material; its template reads them as a list with the step's name."""

    generations: Generations

    @property
    def step(self) -> str:
        """The step whose generations these are."""
        return self.generations.step

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameter values of the select behind these generations."""
        return self.generations.params

    async def count(self) -> int | None:
        """Return 1; None with conditions, because each generation on which one fails is a failed record too."""
        return None if self.generations.conditions else 1

    async def left_out(self) -> int:
        """Return how many records got no content in the step."""
        return await self.generations.left_out()

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the failed materials, then the combined one, if there is anything to combine."""
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


class Source(Protocol):
    """Anything that `run.generate()` can work on; the module says what its parts are."""

    @property
    def step(self) -> str | None:
        """The step whose generations these are; None for records."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameter values of the select behind them."""

    async def count(self) -> int | None:
        """Return how many materials there are; None if that is not known without reading them."""

    async def left_out(self) -> int:
        """Return how many records got no content in the step before."""

    def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield pages of materials with the inputs that a template reads."""


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
    """Yield all pages, and read the next page while the caller works on this one."""
    ahead = asyncio.ensure_future(read(next, pages, None))
    try:
        while (page := await ahead) is not None:
            ahead = asyncio.ensure_future(read(next, pages, None))
            yield page
    finally:
        ahead.cancel()
        # After a stop nothing waits for its error.
        ahead.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
