"""A command's coroutine runs on uvloop's event loop, and the same without it: result, errors, signals, children."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from presswork.engine.resources.event_loop import run_on_loop
from presswork.engine.resources.stopping import Stopper, stopped_by_signals


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"], autouse=True)
def is_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test with and without uvloop."""
    if not request.param:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    return bool(request.param)


async def _own_loop() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_is_used_where_it_is_installed(is_fast: bool) -> None:
    assert run_on_loop(_own_loop()).startswith("uvloop") == is_fast


def test_error_of_the_work_is_raised_unchanged() -> None:
    async def fail() -> None:
        raise LookupError("why")

    with pytest.raises(LookupError, match="why"):
        run_on_loop(fail())


@pytest.fixture
def obeys_ctrl_c() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also if the tests were started with it ignored, as by a shell's `&`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("obeys_ctrl_c")
def test_ctrl_c_ends_the_work_and_lets_it_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(20)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_on_loop(work())

    assert cleaned == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_a_run_and_leaves_the_handlers_as_they_were(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    async def work() -> str:
        stopped = asyncio.Event()
        stopper = Stopper(wait_s=20, close_gate=lambda _reason: stopped.set())
        with stopped_by_signals(stopper):
            os.kill(os.getpid(), number)
            await asyncio.wait_for(stopped.wait(), 20)
        stopper.close()
        return str(stopper.reason)

    assert number.name in run_on_loop(work())
    assert signal.getsignal(number) == before


def test_work_may_start_a_process_and_a_thread() -> None:
    async def work() -> tuple[bytes, int, int]:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(7)", stdout=asyncio.subprocess.PIPE)
        printed, _ = await child.communicate()
        return printed.strip(), child.returncode or 0, await asyncio.to_thread(_added, lambda: 1)

    assert run_on_loop(work()) == (b"7", 0, 2)


def _added(number: Callable[[], int]) -> int:
    return number() + 1
