"""Read all pages of a list in Prefect's API, which by itself returns the first 200 items."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort


class Listed(Protocol):
    """An item in a list of Prefect's API: each has an id."""

    @property
    def id(self) -> UUID:
        """Its id."""


One = TypeVar("One", bound=Listed)


async def read_all(read: Callable[..., Awaitable[list[One]]], *given: Any, **filters: Any) -> list[One]:
    """Call `read` for one page after another until one is empty; an item on two pages is returned once.

    No `limit` is given, as a server may be set to shorter pages and refuses a longer limit. If rows may come and go
    meanwhile, let `filters` sort by a value that does not change, such as the id.
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
