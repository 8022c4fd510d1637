"""Let happen what a night's plan says: what goes wrong at a time, and in the places that its processes use."""

import asyncio
import signal
from collections.abc import Mapping
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import DatabaseError
from db.upkeep.compacting import compact
from tests.nights.plan import Event, Night
from tests.nights.simulated.database import TROUBLES, Outage
from tests.nights.simulated.disks import DISK_TROUBLES
from tests.nights.simulated.host import FlowRun
from tests.nights.simulated.machines import Host
from tests.nights.simulated.processes import SimulatedProcess
from tests.nights.simulated.sources import SOURCE_TROUBLES
from tests.nights.simulated.workplace import TEMPLATES, Workplace
from tests.nights.simulated.world import World

_ALONE = frozenset({*TROUBLES, *DISK_TROUBLES, *SOURCE_TROUBLES, "partition", "no_server", "no_deployment"})
"""The kinds of timed events that are no work of the driver: they hold for all that is tried while they last."""


class Troubles:
    """What goes wrong in one night. `outages`: the times when the ledger, a disk or the source is in trouble."""

    def __init__(
        self, plan: Night, place: Workplace, world: World, hosts: list[Host], owners: Mapping[str, FlowRun]
    ) -> None:
        self.plan, self.place, self.world, self.hosts = plan, place, world, hosts
        self._owners = owners
        self._edits = 0
        self.outages = [outage for event in plan.events for outage in self._outages_of(event)]

    def schedule(self, engine: Engine) -> None:
        """Let all timed events happen; `engine` is the ledger's."""
        for event in self.plan.events:
            if event.is_timed and event.kind not in _ALONE:
                self.world.call_at(event.at, partial(self._happen, event, engine))

    def _outages_of(self, event: Event) -> list[Outage]:
        trouble, host = event.kind, None
        if trouble in {"partition", *DISK_TROUBLES}:
            host = self.hosts[event.who % len(self.hosts)].name
        if trouble == "partition":
            trouble = "unavailable"
        if trouble not in {*TROUBLES, *DISK_TROUBLES, *SOURCE_TROUBLES}:
            return []
        self.world.tell(f"trouble will be: {event.kind} from {event.at:.1f} s for {event.size:.1f} s")
        return [Outage(trouble, event.at, event.at + event.size, host)]

    def arrange(self, process: SimulatedProcess, number: int) -> None:
        """Arrange what happens to a process that starts, by its number."""
        ledger, name = self.place.ledger, process.name
        for event in self.plan.events:
            if event.who != number:
                continue
            match event.kind:
                case "kill":
                    process.kill_at = event.nth
                case "freeze":
                    process.freeze_at[event.nth] = event.size
                case "kill_statement":
                    ledger.kill_at_statement[name] = event.nth
                case "kill_commit":
                    ledger.kill_at_commit[name] = event.nth
                case "fail_statement":
                    ledger.fail_at_statement[name] = event.nth
                case "fail_commit":
                    ledger.fail_at_commit[name] = event.nth
                case "lose_commit":
                    ledger.lost_commits.setdefault(name, set()).add(abs(event.nth))
                case "cut_spill":
                    self.place.disks.cut[name] = event.nth
                case _:  # it happens at a time, or to a helper
                    pass

    def end(self) -> None:
        """End all troubles, and let people repair what they have broken; odd values stay."""
        self.world.tell("morning: all troubles end")
        self.place.ledger.end_troubles()
        self.place.disks.end_troubles()
        self.place.source.end_troubles()
        self.place.write_templates()

    def _happen(self, event: Event, engine: Engine) -> None:
        """Let an event happen, if there is what it concerns."""
        world, host, source = self.world, self.hosts[event.who % len(self.hosts)], self.place.source
        match event.kind:
            case "sleep":
                world.sleep(host, event.size)
            case "reboot":
                world.reboot(host)
            case "jump":
                host.skew_s += event.size
                world.tell(f"{host.name}: its clock is set by {event.size:+.0f} s")
            case "edit":
                self._edits += 1
                world.tell(f"{source.edit(event.who, self._edits)} is edited")
            case "odd_value":
                world.tell(f"{source.make_odd(event.who)} gets an odd value")
            case "null_key" | "repeated_key" | "unstorable_key":
                world.tell(f"a row with a bad key: {event.kind}")
                source.add_bad_key(event.kind)
                world.call_at(world.now + event.size, source.drop_bad_keys)
            case "bad_template":
                name = sorted(TEMPLATES)[event.who % len(TEMPLATES)]
                world.tell(f"the template {name} is broken")
                self.place.break_template(name)
                world.call_at(world.now + event.size, self.place.write_templates)
            case "compact":
                self._compact(engine)
            case "interrupt" | "terminate" | "cancel" | "pause":
                self._stop(event)
            case _:
                raise ValueError(f"nothing is known to happen for {event.kind}")

    def _stop(self, event: Event) -> None:
        """Stop a process, or pause it: that of the event if it works, else the newest one that does."""
        working = [each for each in self.world.processes if each.alive and each.name in self._owners]
        if not working:
            return
        process = next((each for each in working if each is self._numbered(event.who)), working[-1])
        if event.kind == "cancel":
            self.world.tell(f"Cancel for {process.name}")
            self._owners[process.name].cancelling = True
            return
        if event.kind == "pause":
            self.world.freeze(process, event.size)
            return
        number = signal.SIGTERM if event.kind == "terminate" else signal.SIGINT
        self.world.tell(f"{'SIGTERM' if number is signal.SIGTERM else 'Ctrl-C'} for {process.name}")
        self._signal(process, number)
        if event.size:
            self.world.call_at(self.world.now + event.size, partial(self._signal, process, number))

    def _signal(self, process: SimulatedProcess, number: signal.Signals) -> None:
        """Send a signal; a process that does not handle SIGTERM is killed by it."""
        if number is signal.SIGINT:
            process.interrupt(number)
        elif process.alive and not process.loop.receive(number):
            self.world.kill(process, "by SIGTERM")

    def _numbered(self, number: int) -> SimulatedProcess | None:
        return self.world.processes[number] if number < len(self.world.processes) else None

    def _compact(self, engine: Engine) -> None:
        if any(process.alive for process in self.world.processes):
            return

        async def work() -> None:
            try:
                await asyncio.to_thread(compact, engine)
            except (DatabaseError, SQLAlchemyError) as error:
                self.world.tell(f"compact refuses: {error}")

        self.world.start(f"compact {len(self.world.processes)}", self.hosts[0], work)
