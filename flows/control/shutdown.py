"""Stop all that was started here, in order, and nothing else.

First the flow runs, which are given the time that a stopped run takes to record what is in flight: Prefect's worker,
told to stop, would kill them at once. Then the worker, then the server, to which they report.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flows.control import installation
from flows.control.installation import CALLED, SERVER, SUPERVISOR, WORKER, State, locked, read_state, write_state
from flows.errors import PressworkError

SERVER_STOPS_WITHIN_S = 15.0
WORKER_STOPS_WITHIN_S = 45.0  # it gives a flow run 30 s
RUN_RECORDED_WITHIN_S = 15.0  # after the time that a run waits for what is in flight
WATCH_S = 0.5

Say = Callable[[str], None]


class ServiceError(PressworkError):
    """A service did not start, or did not stay; its log says why."""


def stop_services(home: Path, run_stops_within_s: float, say: Say) -> list[str]:
    """Stop all that was started here, and name what was stopped; nothing where nothing runs."""
    state = read_state(home)
    if state is None:
        return []
    longest_s = run_stops_within_s + RUN_RECORDED_WITHIN_S + WORKER_STOPS_WITHIN_S + SERVER_STOPS_WITHIN_S
    named: list[str] = []
    supervisor = state.living(SUPERVISOR)
    if supervisor and supervisor != installation.this_process():
        # It ends what it watches, in the same order.
        named = [called for service, called in CALLED.items() if state.living(service)]
        say(f"Stopping process {supervisor.pid}, which watches over the services ...")
        installation.stop_processes([supervisor], within_s=longest_s)
    with locked(home, longest_s):
        return named + [name for name in stop_started(home, run_stops_within_s, say) if name not in named]


def stop_started(home: Path, run_stops_within_s: float, say: Say, *, keep: State | None = None) -> list[str]:
    """Stop what is remembered as started, but for what `keep` has of it; call it where the home is `locked`."""
    state = read_state(home)
    if state is None:
        return []
    kept = [process for process in (keep.worker, keep.server) if process] if keep else []
    named = []
    if not kept and (runs := _flow_runs(state)):
        say(f"Stopping {'a flow run' if len(runs) == 1 else 'flow runs'} ...")
        installation.stop_processes(runs, within_s=run_stops_within_s + RUN_RECORDED_WITHIN_S)
        named.append("flow runs")
    for service, within_s in ((WORKER, WORKER_STOPS_WITHIN_S), (SERVER, SERVER_STOPS_WITHIN_S)):
        process = state.living(service)
        if process and process not in kept:
            say(f"Stopping {CALLED[service]} ...")
            installation.stop_processes([process], within_s=within_s)
            named.append(CALLED[service])
    write_state(home, keep if kept else None)
    return named


@contextmanager
def watch_over(home: Path, run_stops_within_s: float, say: Say) -> Iterator[None]:
    """However the block ends, at whatever moment: stop what was started for this process to watch, and no other's."""
    try:
        yield
    finally:
        state = read_state(home)
        if state is not None and state.supervisor == installation.this_process():
            stop_services(home, run_stops_within_s, say)


def watch_services(state: State) -> None:
    """Watch until a service ends by itself: ServiceError says which."""
    while True:
        for service, called in CALLED.items():
            if state.living(service) is None:
                raise ServiceError(f"{called.capitalize()} has ended by itself; its last lines above say why.")
        installation.reap_children()
        time.sleep(WATCH_S)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, SIGINT or SIGHUP end the block, once, and with it this process, in order and with status 0."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _flow_runs(state: State) -> list[installation.Process]:
    """What the services have started, now or before one of them crashed: it carries their mark."""
    services = {state.server, state.worker, installation.this_process()}
    return [process for process in installation.marked_processes(state.mark) if process not in services]
