"""Stay, and show for each save what it changed in the answers, with the tokens and the cost of the change."""

import asyncio
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from db.machine import utc_now
from presswork.commands.trying.try_changes import (
    is_same,
    print_change,
    print_prompt_change,
    print_session,
    print_version,
    reads_other,
)
from presswork.commands.trying.try_json import changes_json, trial_json
from presswork.commands.trying.try_line import Telling, TrialLine, live_line, waiting_in_words
from presswork.commands.trying.try_record import print_record, print_system
from presswork.commands.trying.try_stop import kept_in_words, spent_in_words
from presswork.commands.trying.try_template import AskedTrials
from presswork.commands.trying.try_totals import next_steps, print_warnings
from presswork.errors import StoppedError
from presswork.report.amounts import counted, exact_dollars
from presswork.report.summary import HAS_ALL, MET_CAP
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_STOPPED, CommandContext
from presswork.trying.saves import Broken, Capped, Gone, Started, Unchanged, Version, Waiting, WatchEvent, watch_saves
from presswork.trying.sessions import TrySession
from presswork.trying.trials import Trial, TriedRecord


class Watched:
    """What a watch has seen, and whether it only waits for a save; `before` is the trial of the version before.

    Earlier trials are not kept: a watch may see hundreds, with all their prompts.
    """

    def __init__(self, asked: AskedTrials, session: TrySession) -> None:
        self.asked = asked
        self.session = session
        self.before: Trial | None = None
        self.unfinished: list[TriedRecord] = []
        self.is_waiting = False
        self._versions = self._requests = 0

    @property
    def requests(self) -> int:
        """The requests of all versions, also of one that was stopped."""
        return self._requests + sum(record.requests for record in self.unfinished)

    @property
    def versions(self) -> int:
        """The versions that were asked, also one that was stopped, but not those that were broken."""
        return self._versions + bool(self.unfinished)

    @property
    def cap(self) -> float | None:
        """The cap of all versions; None if costs are unknown, so that there is none."""
        return None if self.before is not None and not self.before.is_capped else self.asked.to_try.max_cost

    def record_ended(self, record: TriedRecord) -> None:
        """Take a record as soon as its answer is there."""
        self.unfinished.append(record)

    def happened(self, event: WatchEvent) -> None:
        """Take an event."""
        self.is_waiting = isinstance(event, Waiting | Unchanged | Gone)
        if isinstance(event, Version):
            self.before = event.trial
            self._versions += 1
            self._requests += event.trial.requests
        if isinstance(event, Version | Started):
            self.unfinished.clear()

    def ended(self) -> None:
        """Say what all versions came to."""


class WatchLines(Watched):
    """Prints a line of JSON for each event."""

    def happened(self, event: WatchEvent) -> None:
        """Print an event: its name, and what it says."""
        values = asdict(event) if not isinstance(event, Version) else self._of_version(event)
        screen.print_json_line({"event": type(event).__name__.lower(), **values})
        super().happened(event)

    def ended(self) -> None:
        """Print the last line."""
        told = {
            "versions": self.versions,
            "requests": self.requests,
            "session_usd": self.session.spent.total_usd,
        }
        screen.print_json_line({"event": "ended", **told, "max_cost": self.cap})

    def _of_version(self, event: Version) -> dict[str, Any]:
        changes = changes_json(self.before, event.trial) if self.before is not None else []
        return {"version": event.version, **trial_json(event.trial), "changes": changes}


class WatchScreen(Watched):
    """Prints the first version's records in full, and then what each save changed."""

    def __init__(self, asked: AskedTrials, session: TrySession, console: Console, line: TrialLine) -> None:
        super().__init__(asked, session)
        line.follow(lambda: session.doing)
        self._console, self._line = console, line
        self._befores: dict[str, TriedRecord] = {}
        self._begin()

    def _begin(self) -> None:
        self._ended = self._same = 0
        self._said_prompt = False

    def record_ended(self, record: TriedRecord) -> None:
        """Print a record, or what changed in it."""
        super().record_ended(record)
        self._line.one_ended(record.key)
        before = self._befores.get(record.key)
        if self.before is None:
            if not self._ended:
                print_system(self._console, record)
            print_record(self._console, record)
        elif before is not None and is_same(before, record):
            self._same += 1
        else:
            if before is not None and reads_other(before, record) and not self._said_prompt:
                print_prompt_change(self._console, before, record)
                self._said_prompt = True
            print_change(self._console, before, record)
        self._ended += 1

    def happened(self, event: WatchEvent) -> None:
        """Print an event."""
        match event:
            case Started():
                self._begin()
                self._line.ask(
                    len(self._befores) or self.asked.most_records, [*self._befores] or self.asked.to_try.keys
                )
                saved = f", {', '.join(event.changed)} saved" if event.changed else ""
                print_version(self._console, event.version, f"{utc_now().astimezone():%H:%M:%S}{saved}")
            case Version():
                self._version(event.trial)
            case Broken():
                for mistake in event.mistakes:
                    self._say(f"✘ {mistake}", "red")
            case Gone():
                are = "is" if len(event.files) == 1 else "are"
                self._say(f"✘ {', '.join(event.files)} {are} gone: waiting until saved again.", "red")
            case Unchanged():
                self._say(f"{', '.join(event.saved)} saved without a change: nothing sent.", "dim")
            case Capped():
                self._say(f"{event.why} The watch ends.", "yellow")
            case Waiting():
                self._wait(event)
        super().happened(event)

    def ended(self) -> None:
        """Print what all versions came to, and the commands that come next."""
        if self.unfinished:
            self._console.print(Text(f"\n{kept_in_words(self.unfinished)}", "yellow"))
        total = f"{counted(self.versions, 'version')}, {counted(self.requests, 'request')}"
        of_cap = "" if self.cap is None else f" of {exact_dollars(self.cap)}"
        self._console.print(Text(f"\n{total}, {spent_in_words(self.session.spent)}{of_cap}.", "bold"))
        if self.before is not None:
            # Of the newest version that has answers, also if it was stopped.
            newest = replace(self.before, records=self.unfinished or self.before.records)
            screen.print_next(self._console, next_steps(newest, self.asked))

    def _version(self, trial: Trial) -> None:
        if self._same:
            same = f"{counted(self._same, 'record')}: no change in what Claude reads, nothing sent."
            self._console.print(Text(f"  {same}", "dim"))
        # The line of the session says at each version that the sandbox answers.
        print_warnings(self._console, trial, say_sandbox=self.before is None)
        print_session(self._console, trial, self.before, self.asked.to_try.max_cost)
        self._befores |= {record.key: record for record in trial.records}

    def _wait(self, event: Waiting) -> None:
        self._line.watch(event.files)
        if not self._console.is_terminal:
            screen.say(waiting_in_words(event.files), "dim")

    def _say(self, text: str, style: str) -> None:
        self._console.print(screen.data(f"  {text}", style), soft_wrap=not self._console.is_terminal)


def watch_template(command: CommandContext, asked: AskedTrials) -> int:
    """Ask at each save until Ctrl-C or the cap; return the exit status.

    Ctrl-C is how a watch ends, so the status is 0. If it cuts off requests, the status is that of a stopped run.
    """
    session = TrySession(command.settings)
    with live_line(say=not command.as_json) as (line, console):
        watched = WatchLines(asked, session) if command.as_json else WatchScreen(asked, session, console, line)
        try:
            status = asyncio.run(_watch(command, watched))
        except (KeyboardInterrupt, StoppedError):
            status = HAS_ALL if watched.is_waiting else EXIT_STOPPED
    watched.ended()
    return status


async def _watch(command: CommandContext, watched: Watched) -> int:
    settings, to_try = command.settings, watched.asked.to_try
    async with watched.session as session:

        async def ask() -> Trial:
            telling = Telling(watched.record_ended)
            trial = await session.run(to_try, on_record=telling)
            if telling.is_unread:
                raise BrokenPipeError
            return trial

        async with aclosing(watch_saves(settings.templates_dir, to_try.template, ask)) as events:
            async for event in events:
                watched.happened(event)
                if isinstance(event, Version):
                    command.run_id = event.trial.run_id
    return MET_CAP if watched.before is not None and watched.before.stopped is not None else HAS_ALL
