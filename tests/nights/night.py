"""Carry out the plan of a night: start its runs, do what goes wrong, then make a last run of each job in peace."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from db.clock import agree, now
from db.database_errors import DatabaseError, LedgerError
from db.machine import here, use
from db.sources.spool import Spool
from db.sources.values import Record
from db.words import HELPER
from presswork.engine.opening import open_hosted_run
from presswork.engine.orchestration.host import Kept
from presswork.engine.resources.endpoint import Endpoint
from presswork.errors import PressworkError, RunEndedError
from presswork.options import RunOptions
from presswork.report.summary import Summary
from sandbox.switches import Switches
from tests.nights.plan import MORNING_S, Night, Start
from tests.nights.run_notes import RunNotes
from tests.nights.served.endpoint import SimulatedEndpoint
from tests.nights.simulated.helping import HelperServer
from tests.nights.simulated.host import STEPS, FlowRun, LeavingError, SimulatedHost
from tests.nights.simulated.machines import Host, SimulatedMachine
from tests.nights.simulated.processes import SimulatedProcess
from tests.nights.simulated.workplace import RECORDS_KEPT_S, Workplace
from tests.nights.simulated.world import World
from tests.nights.troubles import Troubles

WAITS_S = 30.0
"""How long a suspended run waits."""
_NEWEST_UNFINISHED = text(
    "SELECT max(id) FROM runs WHERE flow = :flow AND status <> 'completed' AND \"trigger\" <> 'try'"
)


class Driver:
    """One night that goes on."""

    def __init__(self, plan: Night, place: Workplace) -> None:
        self.plan, self.place = plan, place
        self.world = World(plan.seed, str(place.folder))
        self._machine = here()
        self.flow_runs: list[FlowRun] = []
        self.owners: dict[str, FlowRun] = {}
        self.runs: list[RunNotes] = []
        self._is_morning = False
        self.endpoint = SimulatedEndpoint(self.world, _switches(plan), plan.faults)
        names = [f"machine {letter}" for letter in "ABC"[: plan.hosts]]
        self.hosts = [self.world.host(name) for name in names]
        for host, skew in zip(self.hosts, plan.skews, strict=True):
            host.skew_s = skew
        self.helpers = HelperServer(self.world, self.launch, plan.events, plan.hosts)
        self.troubles = Troubles(plan, place, self.world, self.hosts, self.owners)
        place.begin(self.world, plan, self.troubles.outages)
        self.engine = place.ledger.shared() if plan.shared else place.ledger.engine

    def carry_out(self) -> None:
        """Let the night pass, then make the last runs."""
        for start in self.plan.starts:
            self.world.call_at(start.at, partial(self._start, start))
        self.troubles.schedule(self.engine)
        self.world.run(MORNING_S)
        self._end_troubles()
        # Also after trials only: a run of any job recovers what they left.
        jobs = dict.fromkeys(start.job for start in self.plan.starts)
        spilled = [host for host in self.hosts if self._has_spilled(host.name)]
        for host in (*spilled, self.hosts[0]):
            for job in jobs:
                self.world.now += 200.0
                last = host is self.hosts[0]
                if last and job == list(jobs)[-1]:
                    self._wait_for_sweep(host)
                self._start(Start(self.world.now, job, self.hosts.index(host)), must_finish=last)
                self.world.run(self.world.now + MORNING_S)

    def close(self) -> None:
        """Forget the night's processes, and answer by the real machine again."""
        self.world.forget()
        self.flow_runs.clear()
        self.owners.clear()
        use(self._machine)

    def _end_troubles(self) -> None:
        self._is_morning = True
        self.troubles.end()
        self.endpoint.end_faults()

    def _wait_for_sweep(self, host: Host) -> None:
        """Let the time pass until all records that a machine keeps have expired, whatever its clock said meanwhile."""
        looks = SimulatedMachine(self.world, host, 0)
        for path in sorted(self.place.spool_folder(host.name).rglob("*")):
            looks.modified_s(path)
        jumps = sum(abs(each.size) for each in self.plan.events if each.kind == "jump")
        self.world.now += RECORDS_KEPT_S + jumps + abs(host.skew_s)

    def _has_spilled(self, host: str) -> bool:
        return any((self.place.folder / "spill" / host).glob("*.spill"))

    # Starts

    def _start(self, start: Start, *, must_finish: bool = False) -> None:
        known = [each for each in self.flow_runs if each.start.job == start.job and each.state != "Completed"]
        if start.again and known and not start.trial:
            flow_run = known[-1]
            flow_run.cancelling = False
            # It has the parameters that it had, on any machine.
            start = replace(flow_run.start, at=start.at, host=start.host)
        else:
            flow_run = FlowRun(f"flow-run-{len(self.flow_runs) + 1}", start)
            self.flow_runs.append(flow_run)
        self.launch(flow_run, start, must_finish=must_finish)

    def launch(self, flow_run: FlowRun, start: Start, *, must_finish: bool = False) -> SimulatedProcess:
        """Start a process for a flow run."""
        number = len(self.world.processes)
        name = f"p{number}"
        self.owners[name] = flow_run
        process = self.world.start(
            name, self.hosts[start.host % len(self.hosts)], lambda: self._main(name, flow_run, start, must_finish)
        )
        flow_run.states.append("Running")
        self.world.tell(f"{name} works on {flow_run.id} ({start.job}{_said(start)})")
        if self._is_morning:
            return process
        self.troubles.arrange(process, number)
        return process

    def _resume_later(self, flow_run: FlowRun) -> None:
        self.world.call_at(flow_run.due, partial(self.launch, flow_run, flow_run.start))

    async def _main(self, name: str, flow_run: FlowRun, start: Start, must_finish: bool) -> None:
        for tries_left in range(start.retries, -1, -1):
            notes = RunNotes(name, start, self.world.now, must_finish=must_finish)
            self.runs.append(notes)
            host = SimulatedHost(self.world, flow_run, start.job, self._resume_later, self.helpers.help)
            try:
                notes.summary = await self._work(host, flow_run, start, notes)
            except LeavingError as error:
                notes.error = f"left: {error}"
                return
            except (PressworkError, DatabaseError, SQLAlchemyError) as error:
                notes.error = f"{type(error).__name__}: {error}"
                self.world.tell(f"{name} fails: {notes.error}")
                if not tries_left or isinstance(error, RunEndedError):
                    flow_run.states.append("Failed")
                    return
                self.world.tell(f"{name} tries its flow again")
            else:
                flow_run.states.append("Completed")
                notes.exit_status = notes.summary.exit_status
                return
            finally:
                notes.ended_at = self.world.now

    async def _work(self, host: SimulatedHost, flow_run: FlowRun, start: Start, notes: "RunNotes") -> Summary:
        changes = {} if self._is_morning else dict(self.plan.settings)
        settings = self.place.settings_on(self.hosts[start.host % len(self.hosts)].name, changes)
        resumes = await self._found_out(start)
        options = RunOptions(
            limit=start.limit,
            max_cost=start.max_cost,
            refresh=start.refresh,
            concurrency=start.concurrency,
            chunk_size=start.chunk_size,
            shards=start.shards,
            resumes=resumes,
            helper=flow_run.helper,
        )
        assert self.world.current is not None
        client: Any = self.endpoint.client(self.world.current, settings.request_timeout_s)
        kept = Kept(Endpoint("sandbox", client, verified=False), self.engine)
        notes.settings = settings
        async with open_hosted_run(host, settings, options, kept=kept) as run:
            notes.run_id, notes.lease_id = run.ledger.run_id, run.ledger.lease_id
            if flow_run.helper is not None:
                notes.worker = f"{HELPER} {flow_run.helper.number}"
            picked = run.select("note")
            made = await run.generate("note", picked)
            notes.records["note"] = await picked.read(_texts_of, await picked.check())
            if start.job == "reviewed" and not flow_run.approved:
                flow_run.approved = True
                await run.suspend("a person reviews", now() + timedelta(seconds=WAITS_S))
            if len(STEPS[start.job]) > 1:
                await run.generate("title", made)
            notes.summed_up_at = self.world.now
            return run.summary()

    async def _found_out(self, start: Start) -> str | None:
        """Return the run that a start resumes; fails as a command does whose ledger can't be read."""
        try:
            resumes = await asyncio.to_thread(self._unfinished, start) if start.resumes else None
            await asyncio.to_thread(agree, self.engine)
        except OperationalError as error:
            raise LedgerError(f"the ledger can't be read: {error.orig}") from None
        return resumes

    def _unfinished(self, start: Start) -> str | None:
        with self.engine.connect() as connection:
            found = connection.execute(_NEWEST_UNFINISHED, {"flow": start.job}).scalar()
        return None if found is None else str(found)


def _texts_of(spool: Spool) -> dict[str, str]:
    """Return the records of a spool as texts, by their keys."""
    records = [record for page in spool.pages(1000) for record in page]
    return {record.key: record.body for record in records if isinstance(record, Record)}


def _switches(plan: Night) -> Switches:
    return Switches(seed=plan.seed, **dict(plan.switches))


def _said(start: Start) -> str:
    plain = Start(start.at, start.job)
    said = [
        f"{name}={getattr(start, name)}"
        for name in ("again", "resumes", "refresh", "trial", "retries", "deployed", "shards", "max_cost", "limit")
        if getattr(start, name) != getattr(plain, name)
    ]
    return "".join(f", {each}" for each in said)
