"""Make the work pool that flow runs wait in, and ask which workers Prefect's server has heard of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.engine.orchestration.prefect_pages import read_all
from flows.errors import ConfigurationError

TYPE = "process"


async def ensure_pool(name: str, say: Callable[[str], None]) -> None:
    """Make the work pool where there is none; one of another type is a ConfigurationError, a paused one is said."""
    async with get_client() as client:
        try:
            pool = await client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            try:
                pool = await client.create_work_pool(WorkPoolCreate(name=name, type=TYPE, base_job_template=template))
            except ObjectAlreadyExists:
                pool = await client.read_work_pool(name)
    if pool.type != TYPE:
        raise ConfigurationError(
            f"The work pool {name!r} is of type {pool.type!r}; a worker here needs one of type {TYPE!r}. Remove it "
            f"(`prefect work-pool delete {name}`), then `presswork up` makes a new one."
        )
    if pool.is_paused:
        say(f"The work pool {name!r} is paused: no run starts before `prefect work-pool resume {name}`.")


async def has_heard_of(pool: str, worker: str, since: datetime) -> bool:
    """Whether the server has heard of a worker of this name since then."""
    async with get_client() as client:
        workers = await read_all(client.read_workers_for_work_pool, pool)
    heard = (found.last_heartbeat_time for found in workers if found.name == worker)
    return any(when is not None and when >= since for when in heard)
