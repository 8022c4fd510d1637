"""Open the run of a Prefect flow. Only this module lets a run know Prefect, so that trials need none of it."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

from anyio import CancelScope

from presswork.engine.opening import open_hosted_run
from presswork.engine.orchestration.host import HOST
from presswork.engine.orchestration.prefect_host import PrefectHost
from presswork.engine.run import Run
from presswork.options import RunOptions
from presswork.settings import load_settings


@asynccontextmanager
async def open_run(options: RunOptions | None = None, *, flow: str | None = None) -> AsyncIterator[Run]:
    """Open a run inside a Prefect flow, and close it when the flow ends, with or without an error.

    At the flow's `timeout_seconds` requests in flight end at once, and the run is closed as cancelled, with the answers
    it has; that may take PRESSWORK_DATABASE_PATIENCE_S longer. `flow` is the run's name in the ledger; the default is
    the name of the flow's function. Raises ConfigurationError or db.database_errors.DatabaseError before the first
    request.
    """
    _freeze_loaded_objects()
    host = HOST.get() or PrefectHost()
    # When a flow runs longer than its `timeout_seconds`, Prefect cancels each of its awaits from then on. The answers
    # that wait for their commit would be lost, so the run closes without being cancelled once more.
    with CancelScope() as closing:
        async with open_hosted_run(host, load_settings(), options or RunOptions(), flow) as run:
            try:
                yield run
            finally:
                closing.shield = True


@lru_cache(maxsize=1)
def _freeze_loaded_objects() -> None:
    # Prefect and its libraries create half a million objects that live as long as the process. Each full garbage
    # collection would visit them, which costs a tenth of a run's CPU. Collecting before the freeze would do so too.
    gc.freeze()
    # With Python's defaults, its search for circles in the open prompts costs another tenth.
    gc.set_threshold(50_000, 20, 100)
