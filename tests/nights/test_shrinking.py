"""A plan is made smaller while it breaks the same promise, and what is left can be pasted into a test."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from tests.nights.drawn.nights import draw
from tests.nights.plan import Event, Night, Start
from tests.nights.playing import Outcome
from tests.nights.promised.promises import Violation
from tests.nights.served.endpoint_faults import EndpointFault
from tests.nights.shrinking import in_python, shrink

PLAN = Night(
    7,
    records=10,
    starts=(Start(0.0), Start(1.0, "titled", max_cost=0.02, retries=1)),
    events=(Event("kill", nth=9), Event("edit", 2.0), Event("full", 3.0, size=4.0)),
)


def breaking(is_broken: Callable[[Night], bool], promise: str = "a promise") -> Callable[[Night], Outcome]:
    """Break a promise in the nights of these plans, and another one in all others."""

    def play(plan: Night) -> Outcome:
        return Outcome(plan, (Violation(promise if is_broken(plan) else "another promise", "broken"),), ())

    return play


def test_only_what_breaks_the_promise_is_left() -> None:
    play = breaking(lambda plan: Event("full", 3.0, size=4.0) in plan.events and plan.records > 2)
    found = shrink(play(PLAN), play).plan
    assert (found.events, found.starts, found.records) == ((Event("full", 3.0, size=4.0),), (), 3)


def test_what_a_start_asks_for_is_dropped_one_by_one() -> None:
    play = breaking(lambda plan: any(each.max_cost for each in plan.starts))
    assert shrink(play(PLAN), play).plan.starts == (Start(1.0, "titled", max_cost=0.02),)


def test_shrinker_plays_no_more_nights_than_it_may() -> None:
    numbers = count()
    play = breaking(lambda _plan: next(numbers) >= 0)
    shrink(play(PLAN), play, tries=4)
    assert next(numbers) == 5


def test_plan_can_be_pasted_into_a_test() -> None:
    names = {each.__name__: each for each in (Event, EndpointFault, Night, Start)} | {"inf": float("inf")}
    for plan in [PLAN, replace(PLAN, faults=(EndpointFault("away", 0.5),)), *map(draw, range(30))]:
        assert eval(in_python(plan), names) == plan  # noqa: S307 - it is made here
