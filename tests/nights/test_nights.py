"""Nights drawn from seeds keep all promises, and a seed always gives the same night.

`make soak PART=nights` plays 10,000 from another number each day. PRESSWORK_NIGHTS_FROM names the first seed, to play
those of another day.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nights.drawn.nights import draw
from tests.nights.playing import first_of_the_day, play
from tests.nights.simulated.workplace import Workplace

SEEDS, PART = 100, 10
LONG_SEEDS, LONG_PART = 10_000, 500
REPLAYED = (5, 21, 57)
"""Seeds of nights with kills, outages and several machines."""
ROOT = Path(__file__).resolve().parents[2]
DAYS_FIRST = first_of_the_day()
"""The first seed of the day. pytest's workers must collect the same tests, so no test's name has it."""


def play_all(seeds: range, place: Workplace) -> None:
    failed = [outcome for outcome in (play(draw(seed), place) for seed in seeds) if outcome.violations]
    assert not failed, "\n\n".join(
        [
            f"{len(failed)} of {len(seeds)} nights break promises: {', '.join(str(it.plan.seed) for it in failed)}",
            *(each.report() for each in failed[:3]),
        ]
    )


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_nights_keep_all_promises(first: int, place: Workplace) -> None:
    play_all(range(first, first + PART), place)


def test_seed_gives_the_same_night_in_every_process(tmp_path: Path) -> None:
    nights = [replayed(hash_seed, tmp_path) for hash_seed in ("1", "2")]
    assert len(nights[0]) > 10_000 * len(REPLAYED)
    assert nights[0] == nights[1]


def replayed(hash_seed: str, folder: Path) -> str:
    """Play nights in a process of their own; returns their stories and their ledgers' tables."""
    command = [sys.executable, "-m", "tests.nights", "--dump", *map(str, REPLAYED)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout


@pytest.mark.soak
@pytest.mark.parametrize("number", range(LONG_SEEDS // LONG_PART))
def test_nights_of_the_day_keep_all_promises(number: int, place: Workplace) -> None:
    first = DAYS_FIRST + number * LONG_PART
    play_all(range(first, first + LONG_PART), place)
