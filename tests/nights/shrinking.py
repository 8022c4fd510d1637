"""Make the plan of a night that breaks a promise smaller, while it still breaks that promise."""

from collections.abc import Callable
from dataclasses import MISSING, fields

from tests.nights.plan import Event, Night, Start
from tests.nights.playing import Outcome
from tests.nights.served.endpoint_faults import EndpointFault

_PARTS = (Event, Night, Start, EndpointFault)


def shrink(outcome: Outcome, play: Callable[[Night], Outcome], *, tries: int = 300) -> Outcome:
    """Return the outcome of the smallest plan found that still breaks the first promise that `outcome` breaks.

    `tries` is the most nights that are played.
    """
    promise, smallest, left = outcome.broken[0], outcome, tries
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for plan in smallest.plan.parts():
            if left <= 0:
                return smallest
            left -= 1
            found = play(plan)
            if promise in found.broken:
                smallest, is_smaller = found, True
                break
    return smallest


def in_python(part: object) -> str:
    """Write a plan as Python that can be pasted into a test; what has its default is left out."""
    if isinstance(part, tuple):
        inner = ", ".join(map(in_python, part))
        return f"({inner}{',' if len(part) == 1 else ''})"
    if not isinstance(part, _PARTS):
        return repr(part)
    said = [
        f"{each.name}={in_python(getattr(part, each.name))}"
        for each in fields(part)
        if each.default is MISSING or getattr(part, each.name) != each.default
    ]
    return f"{type(part).__name__}({', '.join(said)})"
