"""One workplace for all nights of a test file, and one day for all processes that play them."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from db.machine import here, use
from tests.nights.playing import first_of_the_day
from tests.nights.simulated.workplace import Workplace, open_workplace
from tests.nights.simulated.world import World


def pytest_configure() -> None:
    """Give the workers of this session its day, also if midnight is near."""
    os.environ.setdefault("PRESSWORK_NIGHTS_FROM", str(first_of_the_day()))


def pytest_report_header() -> str:
    """Name the seeds of the long tests; shown only if a test of this folder is named on the command line."""
    first = first_of_the_day()
    return f"nights: the long tests begin with seed {first}; PRESSWORK_NIGHTS_FROM={first} plays them again"


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    """Where nights are played."""
    with open_workplace() as place:
        yield place


@pytest.fixture(autouse=True)
def real_machine_afterwards() -> Iterator[None]:
    """Let the real machine answer again after a test that stepped simulated processes."""
    before = here()
    yield
    asyncio._set_running_loop(None)
    use(before)


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left() -> Iterator[None]:
    """Let no test of another file find what simulated processes have left: coroutines that were never awaited."""
    yield
    World.collect()
