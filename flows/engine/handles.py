"""Handles: what flows pass from step to step. They hold no rows: each pages from a spool or from the ledger.

`run.select()` gives Selected, `run.generate()` gives Generations; `.where()` keeps some, `.together()` makes all of
them one. A handle yields materials: what one prompt is made from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, Protocol, TypeVar

import orjson
from pydantic import BaseModel
from sqlalchemy import Engine

from db.history import StepGeneration, count_generations, read_generations, read_parents
from db.select import Query, Record, make_record
from db.spool import Spool, Unreadable
from flows.engine.source_reads import SourceReader
from flows.steps.validate import OutputClass

P = ParamSpec("P")
T = TypeVar("T")
PAGE = 500  # records read, rendered and looked up at a time
_FURTHEST = 10  # steps back that an output is looked for


@dataclass(frozen=True, slots=True)
class Material:
    """What one prompt is made from: a record or none, the outputs of earlier steps by name, and their ids.

    A `fault` says why there can be no prompt.
    """

    key: str
    record: Record | None
    inputs: Mapping[str, Any]
    parents: tuple[str, ...] = ()
    fault: str | None = None


class Read(Protocol):
    """Calls what reads the ledger in a thread; Writer.read, which waits for a ledger that is unavailable."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns."""


class Source(Protocol):
    """Anything that `run.generate()` can work on."""

    @property
    def step(self) -> str | None:
        """The step whose generations these are; None where they are records."""

    async def count(self) -> int | None:
        """How many materials there will be, where that is known without reading them."""

    def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield materials; `needs` are the names that the template reads."""

    async def left_out(self) -> int:
        """How many records are missing because an earlier step brought no content for them."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A generation as a condition sees it: `output` is an instance of the step's output class."""

    key: str
    record: Mapping[str, Any]
    output: Any


class Selected:
    """Records of a template's select. The database is asked at the first `await`, in a thread.

    `find` makes the spool of its records, with the right keys; `tell` hears how many there are, once.
    """

    def __init__(
        self, reader: SourceReader, query: Query, find: Callable[[], Awaitable[Spool]], tell: Callable[[int], None]
    ) -> None:
        self.query = query
        self._reader = reader
        self._find = find
        self._tell = tell
        self._spool: Spool | None = None
        self._checking = asyncio.Lock()

    @property
    def step(self) -> None:
        """None: records come first."""
        return

    async def check(self) -> Spool:
        """Read the records and check their keys, unless that is done.

        Raises the db.errors of a source that can't be reached, a select that fails or keys that don't tell records
        apart, and StoppedError where the run is stopped.
        """
        async with self._checking:
            if self._spool is None:
                self._spool = await self._find()
                self._tell(self._spool.count)
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
        async for page in _ahead(lambda: self._reader.work(lambda: next(pages, None))):
            yield [_material(record) for record in page]


@dataclass(frozen=True)
class Generations:
    """The succeeded generations of a step in this run; `read` calls what reads the ledger in a thread."""

    ledger: Engine
    run_id: str
    step: str
    output_class: OutputClass
    conditions: tuple[Callable[[Generated], object], ...] = field(default=())
    read: Read = asyncio.to_thread

    def where(self, condition: Callable[[Generated], object]) -> Generations:
        """Keep those for which the condition holds: `triaged.where(lambda t: t.output.urgent)`."""
        return replace(self, conditions=(*self.conditions, condition))

    def together(self) -> Together:
        """Make all of them one material, for a step that reads them as a list."""
        return Together(self)

    async def count(self) -> int | None:
        """How many there are; unknown before a condition has seen them."""
        if self.conditions:
            return None
        lines = await self.read(count_generations, self.ledger, self.run_id)
        return sum(line.count for line in lines if line.step == self.step and line.status == "succeeded")

    async def left_out(self) -> int:
        """How many records this step brought no content for."""
        lines = await self.read(count_generations, self.ledger, self.run_id)
        return sum(line.count for line in lines if line.step == self.step and line.status != "succeeded")

    async def __aiter__(self) -> AsyncIterator[Generated]:
        async for page in self._kept():
            for _generation, seen in page:
                yield seen

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield each with the outputs that lead to it, as far as the template reads them."""
        async for page in self._kept():
            generations = [generation for generation, _seen in page]
            inputs = await self.read(outputs_leading_to, self.ledger, generations, needs)
            yield [
                Material(
                    generation.record_key,
                    _record_of(generation),
                    {"record": generation.record, **inputs[generation.id]}
                    if generation.record is not None
                    else inputs[generation.id],
                    (generation.id,),
                )
                for generation in generations
            ]

    async def _kept(self) -> AsyncIterator[list[tuple[StepGeneration, Generated]]]:
        pages = read_generations(self.ledger, self.run_id, self.step, page_size=PAGE)
        async for page in _ahead(lambda: self.read(next, pages, None)):
            seen = [(generation, self._view(generation)) for generation in page]
            yield [pair for pair in seen if all(condition(pair[1]) for condition in self.conditions)]

    def _view(self, generation: StepGeneration) -> Generated:
        # As it was judged, from JSON: a class may take a date as text there, and nowhere else.
        output: BaseModel = self.output_class.model_validate_json(orjson.dumps(generation.output))
        return Generated(generation.record_key, generation.record or {}, output)


@dataclass(frozen=True)
class Together:
    """All generations of a step as one material: its template reads them as a list, by the step's name."""

    generations: Generations

    @property
    def step(self) -> str:
        """The step whose generations these are."""
        return self.generations.step

    async def count(self) -> int:
        """One."""
        return 1

    async def left_out(self) -> int:
        """How many records the step brought no content for."""
        return await self.generations.left_out()

    async def pages(self, needs: frozenset[str]) -> AsyncIterator[list[Material]]:
        """Yield the one material, or none where there is nothing to put together."""
        collected: list[StepGeneration] = []
        async for page in self.generations._kept():  # noqa: SLF001 - the two classes are one idea
            collected += [generation for generation, _seen in page]
        if not collected:
            return
        step = self.generations.step
        inputs: dict[str, Any] = {}
        if needs - {step}:
            each = await self.generations.read(outputs_leading_to, self.generations.ledger, collected, needs)
            for found in each.values():
                inputs |= found
        inputs[step] = [generation.output for generation in collected]
        yield [Material("", None, inputs, tuple(generation.id for generation in collected))]


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
        parents = read_parents(ledger, list(roots))
        above: dict[str, set[str]] = {}
        for child, found in parents.items():
            for root in roots[child]:
                by_step: dict[str, list[Any]] = {}
                for parent in found:
                    by_step.setdefault(parent.step, []).append(parent.output)
                    above.setdefault(parent.id, set()).add(root)
                for step, outputs in by_step.items():
                    inputs[root].setdefault(step, outputs[0] if len(outputs) == 1 else outputs)
        roots = above
    return inputs


def _material(record: Record | Unreadable) -> Material:
    if isinstance(record, Unreadable):
        return Material(record.key, None, {}, fault=record.fault)
    return Material(record.key, record, {"record": record.data})


def _record_of(generation: StepGeneration) -> Record | None:
    return None if generation.record is None else make_record(generation.record_key, generation.record)


async def _ahead(read: Callable[[], Awaitable[Any]]) -> AsyncIterator[Any]:
    """Yield pages until there is none (None), and read the next one already while this one is worked on."""
    ahead = asyncio.ensure_future(read())
    try:
        while (page := await ahead) is not None:
            ahead = asyncio.ensure_future(read())
            yield page
    finally:
        ahead.cancel()
        # Where a stop has ended it, nobody waits for its error any more.
        ahead.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
