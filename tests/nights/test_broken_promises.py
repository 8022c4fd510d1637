"""Nights can fail: each promise that is broken on purpose, by one line of the product, is found within 1,000 seeds.

`pytest -rP` shows how many nights each took. The seeds begin at 0 for all, and none is left out.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.nights.broken_promises import BROKEN_PROMISES, MOST_SEEDS, BrokenPromise, find
from tests.nights.drawn.nights import draw
from tests.nights.playing import Outcome, play
from tests.nights.promised.promises import Violation
from tests.nights.simulated import database
from tests.nights.simulated.workplace import Workplace

INTERLEAVED_WITHIN = 50
"""Interleaved transactions find what only they can find within this many seeds."""
Breaks = Callable[[int], tuple[str, ...]]


@pytest.fixture(scope="module")
def breaks(place: Workplace) -> Breaks:
    """What a seed's night breaks if nothing is broken on purpose: nothing, unless the product has a defect."""
    return cache(lambda seed: play(draw(seed), place).broken)


def named(broken: BrokenPromise) -> Any:
    return pytest.param(broken, id=broken.name, marks=pytest.mark.soak if broken.is_slow else ())


@pytest.mark.parametrize("broken", [named(each) for each in BROKEN_PROMISES])
def test_broken_promise_is_found(broken: BrokenPromise, place: Workplace, breaks: Breaks) -> None:
    def play_it(seed: int) -> Outcome:
        return play(draw(seed), place)

    found = find(broken, play_it, breaks)
    assert found is not None, f"not found within {MOST_SEEDS} seeds"
    nights, violation = found
    print(f"{broken.name}: found by {nights} nights, {violation}")


@pytest.mark.parametrize("broken", [named(each) for each in BROKEN_PROMISES if each.interleaved])
def test_promise_that_only_interleaving_can_break_is_not_found_without_it(
    broken: BrokenPromise, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_it() -> tuple[int, Violation] | None:
        return find(broken, lambda seed: play(draw(seed), place), lambda _seed: (), INTERLEAVED_WITHIN)

    assert find_it() is not None
    monkeypatch.setattr(database, "HELD_UP", 0.0)
    assert find_it() is None


@pytest.mark.parametrize("target", {each.target: None for each in BROKEN_PROMISES})
def test_what_is_replaced_is_there(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, None)


def test_at_least_ten_broken_promises_are_found_by_every_run_of_the_tests() -> None:
    assert sum(not each.is_slow for each in BROKEN_PROMISES) >= 10
