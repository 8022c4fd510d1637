"""What the checks of a night share: its rows and stories, found by each other's ids."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tests.nights.promised.ledger_rows import KeptAttempt, KeptGeneration, KeptRun, LedgerRows
from tests.nights.promised.night_result import Interval, NightResult, ProcessStory, RunStory
from tests.nights.served.exchanges import Exchange

PERHAPS_BILLED = frozenset({"connection", "timeout", "abandoned", "crashed", "proxy"})
UNSENT = frozenset({"not_sent", "connect"})


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: which one, and the ids, keys and numbers with which a person can start to look."""

    promise: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


@dataclass(frozen=True)
class Evidence:
    """A night and the rows of its ledger."""

    night: NightResult
    rows: LedgerRows

    @cached_property
    def processes(self) -> Mapping[str, ProcessStory]:
        """The processes by name."""
        return {each.name: each for each in self.night.processes}

    @cached_property
    def runs(self) -> Mapping[str, KeptRun]:
        """The rows of runs by id."""
        return {each.id: each for each in self.rows.runs}

    @cached_property
    def generations(self) -> Mapping[str, KeptGeneration]:
        """The generations by id."""
        return {each.id: each for each in self.rows.generations}

    @cached_property
    def trials(self) -> frozenset[str]:
        """The ids of trials."""
        return frozenset(each.id for each in self.rows.runs if each.trigger == "try")

    @cached_property
    def attempts_by_request(self) -> Mapping[str, Sequence[KeptAttempt]]:
        """The attempts by the id of their request."""
        found = defaultdict[str, list[KeptAttempt]](list)
        for each in self.rows.attempts:
            if each.request_id is not None:
                found[each.request_id].append(each)
        return found

    @cached_property
    def attempts_by_generation(self) -> Mapping[str, Sequence[KeptAttempt]]:
        """The attempts by the id of their generation."""
        found = defaultdict[str, list[KeptAttempt]](list)
        for each in self.rows.attempts:
            found[each.generation_id].append(each)
        return found

    @cached_property
    def exchanges_by_request(self) -> Mapping[str, Exchange]:
        """The exchanges by the id of their request."""
        return {each.request_id: each for each in self.night.exchanges if each.request_id is not None}

    def attempt_of(self, exchange: Exchange) -> KeptAttempt | None:
        """Return the attempt that names an exchange's request."""
        found = self.attempts_by_request.get(exchange.request_id or "", ())
        return found[0] if found else None

    def prompt_of(self, exchange: Exchange) -> str:
        """Return the hash of the prompt for which an exchange was made.

        Only the attempt tells the variants of a prompt, whose requests are the same.
        """
        attempt = self.attempt_of(exchange)
        return exchange.prompt if attempt is None else attempt.prompt_hash

    @cached_property
    def exchanges_by_prompt(self) -> Mapping[str, Sequence[Exchange]]:
        """The exchanges of each prompt, in the order in which they were sent."""
        found = defaultdict[str, list[Exchange]](list)
        for each in sorted(self.night.exchanges, key=lambda each: (each.at, each.number)):
            found[self.prompt_of(each)].append(each)
        return found

    def committed(self, id_: str) -> float:
        """Return when a row became visible; infinity if it never did."""
        return self.night.committed_at.get(id_, math.inf)

    def died(self, process: str) -> float:
        """Return when a process was killed; infinity if it was not."""
        story = self.processes.get(process)
        return math.inf if story is None or story.died_at is None else story.died_at

    def left(self, exchange: Exchange) -> float:
        """Return when the work in which an exchange was made was left; infinity if never."""
        found = self.story_of(exchange)
        return math.inf if found is None or found.ended_at is None else found.ended_at

    def story_of(self, exchange: Exchange) -> RunStory | None:
        """Return the work in which a request was sent: the last one that its process had begun by then."""
        attempt = self.attempt_of(exchange)
        began = [
            each
            for each in self.night.runs
            if each.process == exchange.process
            and each.began_at <= exchange.at
            and (attempt is None or each.run_id in {None, attempt.run_id})
        ]
        return max(began, key=lambda each: each.began_at, default=None)

    def stories_of(self, run_id: str) -> Sequence[RunStory]:
        """Return the work of all processes on a run, in the order in which it began."""
        return [each for each in self.night.runs if each.run_id == run_id]

    def unable(self, process: str, since: float, until: float) -> float:
        """Return for how many seconds of a time a process could not commit: frozen, held up, or without its ledger."""
        story = self.processes.get(process)
        return 0.0 if story is None else covered([*story.frozen, *story.held_up, *story.partitioned], since, until)

    def lost_lease(self, process: str, at: float, until: float) -> bool:
        """Whether a process could not renew a lease of this time for so long that others could take what it held."""
        unable = self.unable(process, at - self.night.lease_s, until)
        return unable >= self.night.lease_s - self.night.heartbeat_s - self.night.slack_s * 4

    def without_ledger(self, process: str, since: float, until: float) -> float:
        """Return for how many seconds of a time a process could not reach its ledger."""
        story = self.processes.get(process)
        return 0.0 if story is None else covered(story.partitioned, since, until)


def covered(intervals: Iterable[Interval], since: float, until: float) -> float:
    """Return how many seconds of a time are in any of these intervals."""
    whole, reached = 0.0, since
    for begin, end in sorted(intervals):
        whole += max(0.0, min(end, until) - max(begin, reached))
        reached = max(reached, min(end, until))
    return whole
