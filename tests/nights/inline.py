"""Stand-ins for what the product does in threads of its own, or keeps for its process, which a simulation shares."""

from collections.abc import Callable, Iterator, MutableSet
from concurrent.futures import Future
from typing import Any

from db.machine import Machine, here
from tests.nights.world import KilledError


class InlineReading:
    """Stands in for presswork.engine.resources.source_reads.Reading: does the work at once."""

    def __init__(self, work: Callable[[], Any], left: Callable[[], None] = lambda: None) -> None:
        self.result: Future[Any] = Future()
        self.result.set_running_or_notify_cancel()
        try:
            found = work()
        except KilledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the reader that waits for the result raises it
            left()
            self.result.set_exception(error)
        else:
            left()
            self.result.set_result(found)

    def interrupt(self, _interrupter: object) -> None:
        """Do nothing: the work is done."""


class OpenNow(MutableSet[Any]):
    """Stands in for the set of the runs that are open in this process, of which there are several here."""

    def __init__(self) -> None:
        self._all: set[tuple[Machine, Any]] = set()

    def __contains__(self, name: object) -> bool:
        return (here(), name) in self._all

    def __iter__(self) -> Iterator[Any]:
        return iter([name for of, name in self._all if of is here()])

    def __len__(self) -> int:
        return sum(of is here() for of, _name in self._all)

    def add(self, value: Any) -> None:
        self._all.add((here(), value))

    def discard(self, value: Any) -> None:
        self._all.discard((here(), value))
