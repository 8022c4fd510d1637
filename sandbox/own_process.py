"""Run the sandbox in its own process: for synchronous callers, for load tests and for the command line."""

import asyncio
import contextlib
import json
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox.server import Sandbox
from sandbox.switches import Switches

_ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


@contextlib.contextmanager
def sandbox_process(switches: Switches | None = None, *, port: int = 0) -> Iterator[str]:
    """Run a sandbox in its own process and yield its URL. It ends with the block or with this process.

    Raises RuntimeError if it does not start, for example if the port is in use. The reason is on standard error.
    """
    command = [sys.executable, "-m", "sandbox", "--port", str(port), "--child"]
    for name, value in (switches or Switches()).model_dump(exclude_defaults=True).items():
        command += ["--switch", f"{name}={json.dumps(value)}"]
    # The child reads from a pipe. The pipe closes when this process ends in any way, and then the child ends too.
    child = subprocess.Popen(
        command,
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C stops only the parent. The sandbox still answers open requests while a run stops.
        start_new_session=True,
    )
    try:
        yield _announced(child)
    finally:
        _end(child)


async def serve(
    port: int = 0,
    switches: Switches | None = None,
    announce: Callable[[str], None] = print,
    *,
    until_stdin_ends: bool = False,
) -> None:
    """Run a sandbox until it is interrupted or terminated. Calls announce with its URL when it listens.

    Raises OSError if the port is in use.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopped.set)
    if until_stdin_ends:
        loop.add_reader(sys.stdin.fileno(), stopped.set)
    try:
        async with Sandbox(switches=switches, port=port) as sandbox:
            announce(sandbox.url)
            await stopped.wait()
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)
        if until_stdin_ends:
            loop.remove_reader(sys.stdin.fileno())


def _announced(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], _START_SECONDS)
    url = child.stdout.readline().strip() if ready else ""
    if not url.startswith("http"):
        raise RuntimeError("The sandbox did not start; its message on standard error says why.")
    return url


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
