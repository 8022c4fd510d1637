"""One workplace for all nights of a test file, and one day for all processes that play them."""

import os
from collections.abc import Iterator

import pytest

from tests.nights.playing import first_of_the_day
from tests.nights.simulated.workplace import Workplace, open_workplace


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
