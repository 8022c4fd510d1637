"""Find what two sequences share, in a time and a memory that stay bounded whatever they hold.

rapidfuzz finds the longest common subsequence, but its matrix grows with the product of both lengths. So long sequences
are first cut at anchors: runs that occur once in each and in the same order, as in a patience diff. What has no anchors
and is too long is a change as a whole.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter

from rapidfuzz.distance import Indel

TOKENS = 5_000
"""A hunk with more tokens than this, old and new together, is cut at anchors or shown whole."""
_RUNS = (1, 4, 16)
"""How many tokens make an anchor: single ones first, longer runs where single ones repeat."""
Match = tuple[int, int, int]
"""A shared run: where it begins in the old sequence, where in the new one, and its length."""


def align(old: Sequence[str], new: Sequence[str]) -> list[Match]:
    """Return the runs that both sequences share, in order; none overlap or touch."""
    numbers: dict[str, int] = {}
    # Numbers instead of texts: rapidfuzz compares hashes, and two texts may share one.
    old_ids, new_ids = ([numbers.setdefault(token, len(numbers)) for token in side] for side in (old, new))
    return _joined(_matches(old_ids, new_ids, 0, 0, _RUNS))


def _matches(old: list[int], new: list[int], old_at: int, new_at: int, runs: tuple[int, ...]) -> Iterator[Match]:
    start = _shared_start(old, new)
    end = _shared_start(old[start:][::-1], new[start:][::-1])
    yield old_at, new_at, start
    inner_old, inner_new = old[start : len(old) - end], new[start : len(new) - end]
    at = old_at + start, new_at + start
    if inner_old and inner_new:
        short = len(inner_old) + len(inner_new) <= TOKENS
        yield from _shortest(inner_old, inner_new, *at) if short else _between(inner_old, inner_new, *at, runs)
    yield old_at + len(old) - end, new_at + len(new) - end, end


def _shortest(old: list[int], new: list[int], old_at: int, new_at: int) -> Iterator[Match]:
    for operation in Indel.opcodes(old, new):
        if operation.tag == "equal":
            length = operation.src_end - operation.src_start
            yield old_at + operation.src_start, new_at + operation.dest_start, length


def _between(old: list[int], new: list[int], old_at: int, new_at: int, runs: tuple[int, ...]) -> Iterator[Match]:
    """Cut at anchors and align what is between them."""
    if not runs:
        return
    run, *longer = runs
    last_old = last_new = 0
    for in_old, in_new in chain(_anchors(old, new, run), [(len(old), len(new))]):
        if in_old < last_old or in_new < last_new:
            continue  # it overlaps the anchor before
        if in_old > last_old and in_new > last_new:
            gap = old[last_old:in_old], new[last_new:in_new], old_at + last_old, new_at + last_new
            yield from _matches(*gap, tuple(longer))
        length = min(run, len(old) - in_old)
        yield old_at + in_old, new_at + in_new, length
        last_old, last_new = in_old + length, in_new + length


def _anchors(old: list[int], new: list[int], run: int) -> list[tuple[int, int]]:
    """Return the places of runs that occur once in each sequence, as many as are in the same order in both."""
    in_old, in_new = _only_once(old, run), _only_once(new, run)
    places = sorted((place, in_new[what]) for what, place in in_old.items() if what in in_new)
    return _rising(places)


def _only_once(tokens: list[int], run: int) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for place, what in enumerate(zip(*(tokens[shift:] for shift in range(run)), strict=False)):
        found[what] = -1 if what in found else place
    return {what: place for what, place in found.items() if place >= 0}


def _rising(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest subsequence whose second numbers rise; the first ones rise already."""
    ends: list[int] = []  # the smallest last number of a rising sequence of each length
    last: list[int] = []  # its place in `places`
    before: list[int] = []
    for index, number in enumerate(map(itemgetter(1), places)):
        length = bisect_left(ends, number)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [number]
        last[length : length + 1] = [index]
    found, index = [], last[-1] if last else -1
    while index >= 0:
        found.append(places[index])
        index = before[index]
    return found[::-1]


def _shared_start(old: list[int], new: list[int]) -> int:
    shorter = min(len(old), len(new))
    if old[:shorter] == new[:shorter]:
        return shorter
    return next(place for place in range(shorter) if old[place] != new[place])


def _joined(matches: Iterator[Match]) -> list[Match]:
    """Join runs that touch in both sequences, and leave out empty ones."""
    found: list[Match] = []
    for old_at, new_at, length in matches:
        if not length:
            continue
        if found and (found[-1][0] + found[-1][2], found[-1][1] + found[-1][2]) == (old_at, new_at):
            begin = found.pop()
            found.append((begin[0], begin[1], begin[2] + length))
        else:
            found.append((old_at, new_at, length))
    return found
