"""Lists of Prefect's API are read to the end, however long a server's pages are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest

from presswork.report.prefect.prefect_pages import read_all


@dataclass(frozen=True)
class One:
    id: UUID = field(default_factory=uuid4)


@pytest.mark.parametrize(("count", "page"), [(0, 200), (1, 200), (200, 200), (450, 200), (7, 2)])
async def test_all_pages_are_read(count: int, page: int) -> None:
    there = [One() for _ in range(count)]
    asked: list[dict[str, Any]] = []

    async def read(pool: str, *, offset: int, **filters: Any) -> list[One]:
        asked.append({"pool": pool, **filters})
        return there[offset : offset + page]

    assert await read_all(read, "presswork", sort="ID_DESC") == there
    assert {"pool": "presswork", "sort": "ID_DESC"} in asked
    assert not any("limit" in one for one in asked), "a server with shorter pages would refuse it"


async def test_item_that_moves_to_the_next_page_meanwhile_is_returned_once() -> None:
    there = [One() for _ in range(5)]

    async def read(*, offset: int) -> list[One]:
        page = there[offset : offset + 2]
        if offset == 0:
            there.insert(0, One())
        return page

    found = await read_all(read)
    assert len(found) == len(set(found)) == 5
