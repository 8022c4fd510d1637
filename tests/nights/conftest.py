"""One workplace for all nights of a test file."""

from collections.abc import Iterator

import pytest

from tests.nights.simulated.workplace import Workplace, open_workplace


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    """Where nights are played."""
    with open_workplace() as place:
        yield place
