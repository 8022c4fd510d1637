"""Stop a run whose requests the endpoint refuses one after the other in the same way: a circuit breaker.

A final error is its record's own as a rule, and the others go on. Where every record meets the same (an account that is
spent in words that nobody foresaw, a setting that the model does not take), sending the rest is in vain. So after a row
of refusals that are alike, nothing more is sent for the template until one record from further on was tried: the probe.
The first ones may have something in common.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from db.words import UNSENT
from presswork.errors import CallError, FinalCallError, StoppingCallError

AT_START, IN_A_ROW = 5, 20
"""Refusals alike after which a probe is sent: before the first answer of a template, and after it."""
PROBE_TIMEOUT_S = 5.0
"""How long the probe may wait for its turn before one that has a place among those waiting takes its part."""


class Breaker:
    """Watches how one template's requests are refused; prompts are known by their hashes.

    `send_probe` sends one and returns the hash of its prompt, None where there is none to send.
    """

    def __init__(self, step: str) -> None:
        self._step = step
        self.send_probe: Callable[[], str | None] = lambda: None
        self._has_answered = False
        # The newest refusals that are alike.
        self._likeness: str | None = None
        self._length = 0
        self._last: FinalCallError | None = None
        # Once there are enough of them, all others are held until the probe has decided.
        self._is_holding = False
        self._probe: str | None = None
        self._is_probe_sent = False
        self._is_released = False
        self._waiting: dict[str, None] = {}
        self._changed = asyncio.Event()

    def release(self) -> None:
        """Let all go who wait: the run has stopped, and each finds out by itself."""
        self._is_released = True
        self._wake()

    @asynccontextmanager
    async def place(self, prompt: str, take: Callable[[], AbstractAsyncContextManager[object]]) -> AsyncIterator[None]:
        """Hold a place in flight, which `take` gives; while a probe is out, no other prompt gets one."""
        self._waiting[prompt] = None
        try:
            while True:
                await self._turn(prompt)
                async with take():
                    # Who waited for a place since before the probe gives it back.
                    if self._holds_back(prompt):
                        continue
                    self._waiting.pop(prompt, None)
                    self._is_probe_sent |= self.is_probe(prompt)
                    yield
                    return
        finally:
            self._waiting.pop(prompt, None)
            if self.is_probe(prompt):
                # It came to no decision, as where it met a busy endpoint: another one is tried.
                self._choose_probe(self._last_waiting)

    def is_probe(self, prompt: str) -> bool:
        """Whether the run waits for how this prompt fares."""
        return self._probe == prompt

    def record(self, prompt: str, error: CallError | None) -> StoppingCallError | None:
        """Take note of how a request went, None for an answer, and return what stops the run, if that does."""
        if error is None:
            self._has_answered = True
            self._start_row(None)
            return None
        # What was not sent has met nothing.
        if not isinstance(error, FinalCallError) or isinstance(error, StoppingCallError) or error.kind in UNSENT:
            return None
        if error.alike is None or error.alike != self._likeness:
            self._start_row(error.alike)
        self._length += self._likeness is not None
        self._last = error
        if self.is_probe(prompt):
            return self._reason()
        if not self._is_holding and self._length >= self._enough:
            self._is_holding = True
            self._choose_probe(self.send_probe() or self._last_waiting)
        return None

    def reason_at_end(self) -> StoppingCallError | None:
        """Return what should have stopped the run when its step has ended: all that came after a row met the same."""
        return self._reason() if self._is_holding and self._length > self._enough else None

    @property
    def _enough(self) -> int:
        return IN_A_ROW if self._has_answered else AT_START

    @property
    def _last_waiting(self) -> str | None:
        return next(reversed(self._waiting), None)

    def _start_row(self, likeness: str | None) -> None:
        self._likeness, self._length = likeness, 0
        if self._is_holding:
            self._is_holding = False
            self._choose_probe(None)

    def _choose_probe(self, prompt: str | None) -> None:
        self._probe, self._is_probe_sent = prompt, False
        self._wake()

    def _holds_back(self, prompt: str) -> bool:
        """Whether a prompt has to wait for the probe; where there is none, it becomes the probe."""
        if self._is_released or not self._is_holding:
            return False
        self._probe = self._probe or prompt
        return not self.is_probe(prompt)

    async def _turn(self, prompt: str) -> None:
        while self._holds_back(prompt):
            try:
                await asyncio.wait_for(self._changed.wait(), PROBE_TIMEOUT_S)
            except TimeoutError:
                if self._is_holding and not self._is_probe_sent:
                    # What holds the probe back may be held by those who wait for it.
                    self._choose_probe(prompt)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _reason(self) -> StoppingCallError:
        assert self._last is not None
        return StoppingCallError(
            f"The endpoint rejects one request after the other of the template {self._step!r} in the same way "
            f"({self._length} in a row): "
            f"{str(self._last).rstrip('.')}. Fix the template, the settings or the account, then run again.",
            kind=self._last.kind,
            http_status=self._last.http_status,
        )
