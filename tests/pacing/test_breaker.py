"""Equal rejections in a row stop the run, after a probe from further on was rejected in the same way."""

from __future__ import annotations

import asyncio

import pytest

from presswork.errors import CallError, FinalCallError, PassingCallError, StoppingCallError
from presswork.pacing import breaker as module
from presswork.pacing.breaker import AT_START, IN_A_ROW, Breaker


def refusal(likeness: str | None = "same") -> FinalCallError:
    return FinalCallError("HTTP 400 invalid_request_error: no tea", kind="invalid_request_error", alike=likeness)


class Crowd:
    """Sends prompts one by one through the breaker, and beyond its places in flight."""

    def __init__(self, *far: str) -> None:
        self.breaker = Breaker("note")
        self.places = asyncio.Semaphore(10)
        self.unsent = list(far)
        self.breaker.send_probe = lambda: self.unsent.pop() if self.unsent else None
        self.tasks: dict[str, asyncio.Task[StoppingCallError | None]] = {}
        self.sent: list[str] = []

    def take(self) -> asyncio.Semaphore:
        return self.places

    async def send(self, name: str, error: CallError | None) -> StoppingCallError | None:
        async with self.breaker.place(name, self.take):
            self.sent.append(name)
            return self.breaker.record(name, error)

    async def refused(self, count: int, likeness: str | None = "same") -> None:
        """Have this many rejected one after the other."""
        for number in range(count):
            assert await self.send(f"{likeness} {number}", refusal(likeness)) is None

    def start(self, name: str, error: CallError | None) -> None:
        self.tasks[name] = asyncio.create_task(self.send(name, error))

    async def end(self) -> None:
        """Release all that still wait."""
        self.breaker.release()
        await asyncio.gather(*self.tasks.values())


async def settled() -> None:
    for _turn in range(20):
        await asyncio.sleep(0)


async def test_row_at_the_start_holds_the_others_until_a_probe_has_decided() -> None:
    crowd = Crowd("far")
    await crowd.refused(AT_START)

    crowd.start("next", None)
    await settled()
    assert "next" not in crowd.sent

    stop = await crowd.send("far", refusal())
    assert stop is not None
    assert "note" in str(stop)
    assert "HTTP 400 invalid_request_error: no tea" in str(stop)
    assert stop.kind == "invalid_request_error"
    await crowd.end()


@pytest.mark.parametrize("end", [None, refusal("other"), refusal(None)])
async def test_probe_with_another_result_releases_the_others(end: CallError | None) -> None:
    crowd = Crowd("far")
    await crowd.refused(AT_START)
    crowd.start("next", None)

    assert await crowd.send("far", end) is None
    await crowd.tasks["next"]
    assert crowd.sent[-1] == "next"


async def test_one_more_than_the_row_is_never_enough_by_itself() -> None:
    crowd = Crowd("far")
    await crowd.refused(AT_START - 1)
    crowd.start("next", refusal())

    assert await crowd.tasks["next"] is None


async def test_request_that_was_not_sent_breaks_no_row() -> None:
    crowd = Crowd("far")
    await crowd.refused(AT_START - 1)
    assert await crowd.send("lost", FinalCallError(kind="not_sent")) is None

    await crowd.send("next", refusal())
    assert crowd.unsent == []
    assert await crowd.send("far", refusal()) is not None


async def test_after_an_answer_the_row_is_longer() -> None:
    crowd = Crowd("far")
    await crowd.send("good", None)
    await crowd.refused(IN_A_ROW - 1)
    assert crowd.unsent == ["far"]

    await crowd.send("last", refusal())
    assert crowd.unsent == []
    assert await crowd.send("far", refusal()) is not None


async def test_answer_or_another_refusal_begins_a_new_row() -> None:
    crowd = Crowd("far")
    for likeness in ("a", "b", None, "c"):
        await crowd.refused(AT_START - 1, likeness)
    await crowd.send("good", None)
    await crowd.refused(AT_START)

    assert crowd.unsent == ["far"]


@pytest.mark.parametrize(
    "error", [PassingCallError("busy", kind="overloaded_error", alike="same"), StoppingCallError()]
)
async def test_passing_and_stopping_errors_are_not_counted(error: CallError) -> None:
    crowd = Crowd("far")
    for number in range(IN_A_ROW * 2):
        assert await crowd.send(str(number), error) is None

    assert crowd.unsent == ["far"]


async def test_errors_of_single_records_never_stop_a_run() -> None:
    crowd = Crowd("far")
    await crowd.refused(IN_A_ROW * 2, None)

    assert crowd.unsent == ["far"]


async def test_without_unsent_records_the_last_waiting_one_is_the_probe() -> None:
    crowd = Crowd()
    crowd.places = asyncio.Semaphore(1)
    async with crowd.breaker.place("in flight", crowd.take):
        for name in ("first", "second", "last"):
            crowd.start(name, refusal())
        await settled()
        for number in range(AT_START):
            assert crowd.breaker.record(str(number), refusal()) is None

    assert await crowd.tasks["last"] is not None
    assert crowd.sent == ["last"]
    await crowd.end()


async def test_next_record_is_the_probe_if_none_is_waiting() -> None:
    crowd = Crowd()
    await crowd.refused(AT_START)

    assert await crowd.send("late", refusal()) is not None


async def test_probe_that_meets_a_busy_endpoint_is_followed_by_another() -> None:
    crowd = Crowd("far")
    await crowd.refused(AT_START)
    crowd.start("next", refusal())
    await settled()

    assert await crowd.send("far", PassingCallError("busy", kind="overloaded_error")) is None
    assert await crowd.tasks["next"] is not None


async def test_probe_that_is_interrupted_is_followed_by_another() -> None:
    crowd = Crowd("far")
    await crowd.refused(AT_START)
    crowd.start("next", refusal())
    await settled()

    with pytest.raises(RuntimeError):
        async with crowd.breaker.place("far", crowd.take):
            raise RuntimeError("a bug")
    assert await crowd.tasks["next"] is not None


async def test_probe_that_is_never_sent_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 0.01)
    crowd = Crowd("held by those who wait for it")
    await crowd.refused(AT_START)

    assert await crowd.send("next", refusal()) is not None


async def test_answer_that_was_in_flight_releases_the_others() -> None:
    crowd = Crowd("far")
    async with crowd.breaker.place("in flight", crowd.take):
        await crowd.refused(AT_START)
        crowd.start("next", None)
        await settled()
        assert "next" not in crowd.sent
        crowd.breaker.record("in flight", None)
    await crowd.tasks["next"]


@pytest.mark.parametrize(("count", "stops"), [(AT_START - 1, False), (AT_START, False), (AT_START + 1, True)])
async def test_step_that_ends_before_a_probe_stops_if_more_than_the_row_failed_alike(count: int, stops: bool) -> None:
    crowd = Crowd()
    async with asyncio.TaskGroup() as group:
        # All of them are in flight before the first is rejected.
        started = asyncio.Barrier(count)

        async def send(name: str) -> None:
            async with crowd.breaker.place(name, crowd.take):
                await started.wait()
                assert crowd.breaker.record(name, refusal()) is None

        for number in range(count):
            group.create_task(send(str(number)))

    assert (crowd.breaker.reason_at_end() is not None) == stops
