"""Replay nights by their seeds: `python -m tests.nights SEED`. Play many: `python -m tests.nights --from N --count K`.

Exit status: 0 if all promises were kept, 1 if not, 2 for arguments that make no sense.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from db.machine import monotonic_s
from tests.nights.drawn.nights import draw
from tests.nights.playing import Outcome, play
from tests.nights.shrinking import in_python, shrink
from tests.nights.simulated.workplace import Workplace, open_workplace


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the arguments name, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.nights", description="Play simulated nights.")
    parser.add_argument("seeds", type=int, nargs="*", help="Replay the nights of these seeds and print their stories.")
    parser.add_argument("--dump", action="store_true", help="Print the ledgers of the seeds too, but no times.")
    parser.add_argument("--from", type=int, default=0, dest="first", help="Play many nights, from this seed on.")
    parser.add_argument("--count", type=int, default=100, help="Number of nights to play.")
    parser.add_argument("--shrink", action="store_true", help="Make the plan of a night that fails smaller.")
    parser.add_argument("--tries", type=int, default=300, help="Number of nights that a shrinker may play.")
    parser.add_argument("--happenings", action="store_true", help="Print how often each thing happened.")
    chosen = parser.parse_args(arguments)
    with open_workplace() as place:
        if chosen.seeds:
            outcomes = [_replay(seed, place, with_dump=chosen.dump) for seed in chosen.seeds]
            failed = [outcome for outcome in outcomes if outcome.violations]
        else:
            failed = _play_many(range(chosen.first, chosen.first + chosen.count), place, happenings=chosen.happenings)
        for outcome in failed if chosen.shrink else []:
            small = shrink(outcome, lambda plan: play(plan, place), tries=chosen.tries)
            print(f"\nThe smallest plan that breaks {outcome.broken[0]!r}:\n{in_python(small.plan)}")
            print(small.report())
    return int(bool(failed))


def _replay(seed: int, place: Workplace, *, with_dump: bool) -> Outcome:
    plan = draw(seed)
    outcome = play(plan, place, with_dump=with_dump)
    print(in_python(plan))
    print(*outcome.story, sep="\n")
    print(*(f"BROKEN  {each}" for each in outcome.violations), outcome.error or "", sep="\n")
    if with_dump:
        print(outcome.dump)
    else:
        print(f"{len(outcome.violations)} broken, {outcome.simulated_s:,.0f} simulated s, {outcome.took_s:.3f} real s")
    return outcome


def _play_many(seeds: range, place: Workplace, *, happenings: bool) -> list[Outcome]:
    began, cpu, failed, simulated = monotonic_s(), time.process_time(), [], 0.0
    broken: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    nights: Counter[str] = Counter()
    slowest = (0.0, -1)
    for seed in seeds:
        outcome = play(draw(seed), place)
        simulated += outcome.simulated_s
        slowest = max(slowest, (outcome.took_s, seed))
        happened.update(outcome.happenings)
        nights.update(outcome.happenings.keys())
        if outcome.violations:
            failed.append(outcome)
            broken.update(outcome.broken)
            print(f"seed {seed}: {'; '.join(map(str, outcome.violations[:3]))}", flush=True)
    took = monotonic_s() - began
    count = len(seeds)
    used = time.process_time() - cpu
    print(
        f"{count:,} seeds from {seeds.start} in {took:,.1f} s: {len(failed)} failed, {count / took:.2f} seeds/s, "
        f"{took / count:.3f} s a seed ({used / count:.3f} s of CPU), "
        f"the slowest {slowest[0]:.2f} s (seed {slowest[1]}), "
        f"{simulated / 60 / took:,.1f} simulated hours in a real minute ({simulated / 60 / used:,.1f} in one of CPU)"
    )
    print(*(f"{number:6}  {promise}" for promise, number in broken.most_common()), sep="\n")
    if failed:
        print("failing seeds:", *(each.plan.seed for each in failed))
    if happenings:
        print(*(f"{happened[name]:8}  in {nights[name]:5} nights: {name}" for name in sorted(happened)), sep="\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
