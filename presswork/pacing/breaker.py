"""Stop a run when the endpoint rejects one request after the other in the same way: a circuit breaker.

Usually a final error belongs to one record, and the other records continue. But sometimes every record gets the same
error: the account has no credit, or the model does not accept a setting. Then it is useless to send the rest. So after
several equal rejections in a row, the breaker holds the template's requests and first sends one record from further on,
the probe. It comes from further on because the first records may have something in common.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from db.words import UNSENT
from presswork.errors import CallError, FinalCallError, StoppingCallError

AT_START, IN_A_ROW = 5, 20
"""This many equal rejections in a row trigger a probe: before a template's first answer, and after it."""
PROBE_TIMEOUT_S = 5.0
"""If the probe has not been sent after this time, one of the waiting prompts becomes the probe."""


class Breaker:
    """Watches the rejections of one template's requests; prompts are identified by their hashes.

    `send_probe` sends one prompt and returns its hash, or None if none is left to send.
    """

    def __init__(self, step: str) -> None:
        self._step = step
        self.send_probe: Callable[[], str | None] = lambda: None
        self._has_answered = False
        # The current row of equal rejections.
        self._likeness: str | None = None
        self._length = 0
        self._last: FinalCallError | None = None
        # Once the row is long enough, all others wait until the probe has decided.
        self._is_holding = False
        self._probe: str | None = None
        self._is_probe_sent = False
        self._is_released = False
        self._waiting: dict[str, None] = {}
        self._changed = asyncio.Event()

    def release(self) -> None:
        """Release all waiting requests after the run has stopped; each of them finds out by itself."""
        self._is_released = True
        self._wake()

    @asynccontextmanager
    async def place(self, prompt: str, take: Callable[[], AbstractAsyncContextManager[object]]) -> AsyncIterator[None]:
        """Hold a place in flight, from `take`; while a probe is out, no other prompt gets one."""
        self._waiting[prompt] = None
        try:
            while True:
                await self._turn(prompt)
                async with take():
                    # This prompt began to wait before the probe was chosen: release its place.
                    if self._holds_back(prompt):
                        continue
                    self._waiting.pop(prompt, None)
                    self._is_probe_sent |= self.is_probe(prompt)
                    yield
                    return
        finally:
            self._waiting.pop(prompt, None)
            if self.is_probe(prompt):
                # The probe decided nothing, for example because the endpoint was busy: choose another one.
                self._choose_probe(self._last_waiting)

    def is_probe(self, prompt: str) -> bool:
        """Whether the run waits for the result of this prompt."""
        return self._probe == prompt

    def record(self, prompt: str, error: CallError | None) -> StoppingCallError | None:
        """Record how a request ended (None: with an answer), and return the error that stops the run, if any."""
        if error is None:
            self._has_answered = True
            self._start_row(None)
            return None
        # A request that was not sent shows nothing about the endpoint.
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
        """Return the error that should have stopped the run, once its step has ended: later requests failed alike."""
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
        """Whether a prompt has to wait for the probe; if there is no probe, the prompt becomes it."""
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
                    # The probe may need something that the requests waiting for it hold.
                    self._choose_probe(prompt)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _reason(self) -> StoppingCallError:
        assert self._last is not None
        return StoppingCallError(
            f"The endpoint rejected {self._length} requests of the template {self._step!r} in a row in the same way: "
            f"{str(self._last).rstrip('.')}. Fix the template, the settings or the account, then run again.",
            kind=self._last.kind,
            http_status=self._last.http_status,
        )
