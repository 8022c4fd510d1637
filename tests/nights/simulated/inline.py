"""A stand-in for the threads that read a source: it does their work at once."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class InlineReading:
    """Stands in for presswork.engine.resources.source_reads.Reading: does the work at once."""

    def __init__(self, work: Callable[[], Any], left: Callable[[], None] = lambda: None) -> None:
        self.result: Future[Any] = Future()
        self.result.set_running_or_notify_cancel()
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001 - the reader that waits for the result raises it
            left()
            self.result.set_exception(error)
        else:
            left()
            self.result.set_result(found)

    def interrupt(self, _find_interrupter: object) -> None:
        """Do nothing: the work is done."""
