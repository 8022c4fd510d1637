"""Wait in a test for what no event announces: the sandbox, the ledger, a log, a thread or another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], *, pause_s: float = 0.01) -> None:
    """Return when `holds` is true. Nothing limits the wait except the test's own time limit."""
    while True:
        if holds():
            return
        await asyncio.sleep(pause_s)
