"""Show a run in Prefect's UI while it goes on: its tags, and an artifact that moves with it.

It is never in the run's way: what Prefect's server does not take, the run does without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.exceptions import PrefectException

from flows.engine.report.progress import Progress

KEY = "presswork-progress"
LOOK_S = 1.0
"""How often the pace is looked at."""
UPDATE_EVERY_S = 5.0
END_WITHIN_S = 5.0
AWAY = (HTTPError, PrefectException, OSError)


@asynccontextmanager
async def shown_live(progress: Progress) -> AsyncIterator[None]:
    """Keep an artifact of the flow run at what the run has come to, while the context is open."""
    artifact: UUID | None = None

    async def update() -> None:
        nonlocal artifact
        percent, words = progress.percent, progress.words()
        if artifact is None:
            artifact = await acreate_progress_artifact(percent, key=KEY, description=words)
        else:
            await aupdate_progress_artifact(artifact, percent, description=words)

    async def update_again() -> None:
        while True:
            with suppress(*AWAY):
                await update()
            for _look in range(round(UPDATE_EVERY_S / LOOK_S)):
                progress.look_at_pace()
                await asyncio.sleep(LOOK_S)

    work = asyncio.create_task(update_again(), name="presswork-live")
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        with suppress(*AWAY, TimeoutError):
            await asyncio.wait_for(update(), END_WITHIN_S)
