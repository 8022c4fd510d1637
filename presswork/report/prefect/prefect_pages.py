"""Read whatever Prefect's API lists, all of it. By itself the API gives the first 200."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort


class Listed(Protocol):
    """What Prefect lists: each has an id."""

    @property
    def id(self) -> UUID:
        """Its id."""


One = TypeVar("One", bound=Listed)


async def read_all(read: Callable[..., Awaitable[list[One]]], *given: Any, **filters: Any) -> list[One]:
    """Call `read` for one page after another until one is empty; what stands on two of them is returned once.

    A server may be set to shorter pages, and refuses a `limit` that is longer than these: none is given. Let `filters`
    sort by what does not move, such as the id, where rows come and go meanwhile.
    """
    found: dict[UUID, One] = {}
    offset = 0
    while page := await read(*given, **filters, offset=offset):
        offset += len(page)
        found.update((one.id, one) for one in page)
    return list(found.values())


async def read_deployments(client: PrefectClient) -> dict[str, DeploymentResponse]:
    """Read all deployments by their full names: flow/deployment."""
    found = await read_all(client.read_deployments, sort=DeploymentSort.CREATED_DESC)
    flows = {flow.id: flow.name for flow in await read_all(client.read_flows)}
    return {f"{flows.get(one.flow_id, '?')}/{one.name}": one for one in found}
