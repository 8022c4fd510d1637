"""Alike: stop a run whose requests the endpoint refuses one after the other in the same way.

A final error is its record's own as a rule, and the others go on. Where every record meets the same (an account that is
spent in words that nobody foresaw, a setting that the model does not take), sending the rest is in vain. So after a row
of refusals that are alike, nothing more is sent for the template until one record from further on was tried: the first
ones may have something in common.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from db.words import UNSENT
from flows.errors import CallError, FinalCallError, StoppingCallError
from flows.steps.prompts.render import Prompt

AT_START, IN_A_ROW = 5, 20
"""Refusals alike after which a record from further on is tried: before the first answer of a template, and after it."""
PATIENCE_S = 5.0
"""How long the chosen record may wait for its turn before one that has a place among those waiting is tried instead."""

Further = Callable[[], str | None]
Take = Callable[[], AbstractAsyncContextManager[object]]


@dataclass
class _Row:
    """The newest refusals of one template; `trial` is the prompt that decides whether the run stops."""

    answered: bool = False
    likeness: str | None = None
    length: int = 0
    suspected: bool = False
    trial: str | None = None
    is_sent: bool = False
    last: CallError | None = None
    waiting: dict[str, None] = field(default_factory=dict)

    def begin(self, likeness: str | None) -> None:
        """Begin a new row: what was suspected is not so."""
        self.likeness, self.length = likeness, 0
        self.suspected, self.trial, self.is_sent = False, None, False


class Alike:
    """Watches the refusals of one run, apart for each template."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._further: dict[str, Further] = {}
        self._changed = asyncio.Event()
        self._ended = False

    def watch(self, step: str, further: Further) -> None:
        """Have `further` send a record from further on when asked, and return its prompt's hash, None without one."""
        self._further[step] = further

    def end(self) -> None:
        """Let all go that wait: the run has stopped, and they will be told so."""
        self._ended = True
        self._wake()

    @asynccontextmanager
    async def place(self, prompt: Prompt, take: Take) -> AsyncIterator[None]:
        """Hold a place in flight, which `take` gives; while a trial is made, nobody else of the template gets one."""
        row = self._row(prompt)
        row.waiting[prompt.hash] = None
        try:
            while True:
                await self._turn(row, prompt.hash)
                async with take():
                    # Who waited for a place from before the trial gives it back.
                    if self._is_held(row, prompt.hash):
                        continue
                    row.waiting.pop(prompt.hash, None)
                    row.is_sent = row.is_sent or row.trial == prompt.hash
                    yield
                    return
        finally:
            row.waiting.pop(prompt.hash, None)
            if row.trial == prompt.hash:
                # It came to no decision, as where it met a busy endpoint: another one is tried.
                self._try(row, next(reversed(row.waiting), None))

    def tries(self, prompt: Prompt) -> bool:
        """Whether the run waits for how this prompt fares."""
        return self._row(prompt).trial == prompt.hash

    def tell(self, prompt: Prompt, error: CallError | None) -> StoppingCallError | None:
        """Take note of how a request went, None for an answer, and return what stops the run, if that does."""
        row = self._row(prompt)
        if error is None:
            row.answered = True
            self._begin(row, None)
        elif isinstance(error, FinalCallError) and not isinstance(error, StoppingCallError):
            # What was not sent has met nothing.
            return None if error.kind in UNSENT else self._refused(row, prompt, error)
        return None

    def unsaid(self, step: str) -> StoppingCallError | None:
        """What should have stopped the run when a step has ended: all that came after a row met the same."""
        row = self._rows.get(step)
        if row is None or not row.suspected or row.length <= self._enough(row):
            return None
        return _stop(step, row)

    def _refused(self, row: _Row, prompt: Prompt, error: FinalCallError) -> StoppingCallError | None:
        if error.alike is None or error.alike != row.likeness:
            self._begin(row, error.alike)
        row.length += row.likeness is not None
        row.last = error
        step = prompt.brief.template.name
        if row.suspected and row.trial == prompt.hash:
            return _stop(step, row)
        if not row.suspected and row.length >= self._enough(row):
            row.suspected = True
            further = self._further.get(step, lambda: None)
            self._try(row, further() or next(reversed(row.waiting), None))
        return None

    def _row(self, prompt: Prompt) -> _Row:
        return self._rows.setdefault(prompt.brief.template.name, _Row())

    def _enough(self, row: _Row) -> int:
        return IN_A_ROW if row.answered else AT_START

    def _begin(self, row: _Row, likeness: str | None) -> None:
        was_suspected = row.suspected
        row.begin(likeness)
        if was_suspected:
            self._wake()

    def _try(self, row: _Row, prompt_hash: str | None) -> None:
        row.trial, row.is_sent = prompt_hash, False
        self._wake()

    def _is_held(self, row: _Row, prompt_hash: str) -> bool:
        if self._ended or not row.suspected:
            return False
        if row.trial is None:
            row.trial = prompt_hash
        return row.trial != prompt_hash

    async def _turn(self, row: _Row, prompt_hash: str) -> None:
        while self._is_held(row, prompt_hash):
            try:
                await asyncio.wait_for(self._changed.wait(), PATIENCE_S)
            except TimeoutError:
                if row.suspected and not row.is_sent:
                    # What holds the chosen one back may be held by those who wait for it.
                    self._try(row, prompt_hash)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _stop(step: str, row: _Row) -> StoppingCallError:
    assert row.last is not None
    return StoppingCallError(
        f"The endpoint rejects one request after the other of the template {step!r} in the same way "
        f"({row.length} in a row): "
        f"{str(row.last).rstrip('.')}. Fix the template, the settings or the account, then run again.",
        kind=row.last.kind,
        http_status=row.last.http_status,
    )
