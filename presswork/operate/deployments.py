"""Create and update the deployments of prefect.yaml and the templates on a Prefect server, and their work pool.

Nothing else is changed, and deploying again changes only what differs. A deployment that can't be made is reported, and
the others are made. While a declared flow can't be loaded, templates that may be its steps stay as they are on the
server. A schedule's switch belongs to the operator: deploying sets it only when it creates the schedule.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from db.words import POOL, SHARD_TAG, SHARDS
from presswork.engine.orchestration.origin import ledger_label, ledger_of
from presswork.errors import ConfigurationError
from presswork.operate.automations import install_automations, install_notification
from presswork.operate.deployment_specs import DeploymentPlan, DeploymentSpec, concerns_all, plan_deployments, reason
from presswork.operate.installation import Say
from presswork.operate.prefect_yaml import FILE
from presswork.prompts.flow_source import GENERIC
from presswork.report.prefect.prefect_pages import read_deployments
from presswork.settings import ROOT, Settings, load_settings

POOL_TYPE = "process"
NOTIFICATION = "the automation that reports failed runs"

Change = Literal["created", "updated", "unchanged", "removed"]
PrefectSchedule = DeploymentSchedule | DeploymentScheduleCreate


@dataclass
class Deployed(DeploymentPlan):
    """The result of a deploy: the plan, the changes by deployment, the schedules that are paused.

    `refused` also has what Prefect refuses: a deployment, or the automation that reports failed runs. `unscheduled` has
    the schedules of deployments that were removed.
    """

    changes: dict[str, Change] = field(default_factory=dict)
    paused: list[str] = field(default_factory=list)
    unscheduled: dict[str, list[str]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The deployments that exist now."""
        return [name for name, change in self.changes.items() if change != "removed"]

    @property
    def is_whole(self) -> bool:
        """Whether everything was made, and every flow could be read."""
        return not (self.left_out or self.refused or self.unreadable)


async def deploy(*, work_pool: str = POOL, say: Say, file: Path = ROOT / FILE) -> Deployed:
    """Make the deployments that plan_deployments() plans.

    A deployment that can't be made (see DeploymentPlan), or that Prefect's server refuses, is reported and its old
    version stays. If a template was deleted, or is now a step of a declared flow, its deployment is removed. Raises
    ConfigurationError for a mistake in prefect.yaml or a missing pool, before anything is changed.
    """
    settings = load_settings()
    made = Deployed(**vars(plan_deployments(settings, file)))
    async with get_client() as client:
        await _require_pool(client, work_pool)
        known = await read_deployments(client)
        for name, spec in made.specs.items():
            try:
                made.changes[name] = await _apply(client, known.get(name), spec, work_pool)
            except Exception as error:
                # The boundary of one deployment; an error that concerns all is raised.
                if concerns_all(error):
                    raise
                made.refused[name] = reason(error)
            else:
                made.paused += _paused(known.get(name, spec).schedules, spec)
        await _remove(client, known, settings, made)
    await _automate(made, say)
    _report(made, say)
    return made


def _paused(schedules: Iterable[PrefectSchedule], spec: DeploymentSpec) -> Iterator[str]:
    """Yield the paused schedules among those that were deployed, with their crons."""
    slugs = {schedule.slug for schedule in spec.schedules}
    for schedule in schedules:
        if not schedule.active and schedule.slug in slugs:
            cron = getattr(schedule.schedule, "cron", None)
            yield f"{spec.full_name} ({cron})" if cron else spec.full_name


async def _remove(
    client: PrefectClient, known: dict[str, DeploymentResponse], settings: Settings, made: Deployed
) -> None:
    """Remove the deployments of templates that have none in the plan, and those that their runs made for shards."""
    kept = {*made.changes, *made.refused, *(f"{GENERIC}/{name}" for name in made.left_out)}
    for name, gone in known.items():
        is_of_template = name == f"{GENERIC}/{gone.name}" and gone.parameters == {"template": gone.name}
        if name in kept or not is_of_template or ledger_of(gone) != ledger_label(settings):
            continue
        shards = known.get(f"{name}{SHARDS}")
        for one in (gone, shards) if shards and shards.tags == [SHARD_TAG] else (gone,):
            await client.delete_deployment(one.id)
        made.changes[name] = "removed"
        if gone.schedules:
            made.unscheduled[name] = [_described(schedule) for schedule in gone.schedules]


async def _automate(made: Deployed, say: Say) -> None:
    try:
        for install in (install_automations, install_notification):
            for automation in await install():
                say(f"Automation {automation!r}: set up.")
    except ConfigurationError as error:
        # On a new machine, the block can be made only once the server runs.
        made.refused[NOTIFICATION] = str(error)


def _report(made: Deployed, say: Say) -> None:
    for name, change in made.changes.items():
        if change != "unchanged":
            say(f"Deployment {name}: {change}.")
    for name, schedules in made.unscheduled.items():
        say(f"Schedules removed with {name}: {', '.join(schedules)}.")
    same = sum(change == "unchanged" for change in made.changes.values())
    if same:
        say(f"{same} of {len(made.names)} deployments are unchanged.")
    for name, flows in made.covered.items():
        say(f"{name} is a step of {' and '.join(flows)}, so it has no deployment.")
    for flow, names in made.undeclared.items():
        named, kept = ", ".join(names), "keeps its deployment" if len(names) == 1 else "keep their deployments"
        say(f"flows/{flow}.py names {named}, but has no deployment: {named} {kept} until {FILE} declares the flow.")
    for name, error in made.unreadable.items():
        say(f"Flow file {name}: not read. {error}")
    for name, error in made.left_out.items():
        say(f"Template {name}: not deployed. {error}")
    for name, error in made.refused.items():
        say(f"Not made: {name}. {error}")
    if made.paused:
        say(f"Paused schedules, which spend nothing: {', '.join(made.paused)}. Turn one on in the Prefect UI.")


async def ensure_pool(name: str, say: Say) -> None:
    """Make the work pool if it does not exist. ConfigurationError if it has another type; a paused one is reported."""
    async with get_client() as client:
        try:
            pool = await client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            wanted = WorkPoolCreate(name=name, type=POOL_TYPE, base_job_template=template)
            try:
                pool = await client.create_work_pool(wanted)
            except ObjectAlreadyExists:
                pool = await client.read_work_pool(name)
    if pool.type != POOL_TYPE:
        raise ConfigurationError(
            f"The work pool {name!r} is of type {pool.type!r}; a worker here needs one of type {POOL_TYPE!r}. Remove "
            f"it (`prefect work-pool delete {name}`), then `presswork up` makes a new one."
        )
    if pool.is_paused:
        say(f"The work pool {name!r} is paused. Start its runs with `prefect work-pool resume {name}`.")


async def _require_pool(client: PrefectClient, name: str) -> None:
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        raise ConfigurationError(
            f"There is no work pool {name!r} on this Prefect server. `presswork up` makes this machine's pool. Or make "
            f"it with `prefect work-pool create {name} --type process`, or choose another with --pool."
        ) from None


async def _apply(client: PrefectClient, found: DeploymentResponse | None, spec: DeploymentSpec, pool: str) -> Change:
    facts = spec.facts(pool)
    if found is None:
        flow_id = await client.create_flow_from_name(spec.flow)
        await client.create_deployment(flow_id, spec.name, schedules=spec.schedules, **facts)
        return "created"
    changed = await _sync_schedules(client, found, spec)
    limit, options = found.global_concurrency_limit, found.concurrency_options
    limits = {
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": options.model_dump(mode="json") if options else None,
    }
    if limits | {name: getattr(found, name) for name in facts.keys() - limits.keys()} != facts:
        await client.update_deployment(found.id, DeploymentUpdate(**facts))
        changed = True
    return "updated" if changed else "unchanged"


async def _sync_schedules(client: PrefectClient, found: DeploymentResponse, spec: DeploymentSpec) -> bool:
    """Create, update and delete the schedules that have a slug. Those that people made in the UI have none."""
    known = {schedule.slug: schedule for schedule in found.schedules if schedule.slug}
    changed = False
    for one in spec.schedules:
        old = known.pop(one.slug or "", None)
        if old is None:
            await client.create_deployment_schedules(found.id, [one])
        elif _facts(old) != _facts(one):
            await client.update_deployment_schedule(
                found.id, old.id, active=old.active, schedule=one.schedule, slug=one.slug
            )
        else:
            continue
        changed = True
    for gone in known.values():
        await client.delete_deployment_schedule(found.id, gone.id)
    return changed or bool(known)


def _facts(schedule: PrefectSchedule) -> dict[str, Any]:
    # Without an anchor, an interval gets the time of its creation.
    return schedule.schedule.model_dump(mode="json", exclude={"anchor_date"})


def _described(schedule: DeploymentSchedule) -> str:
    facts = _facts(schedule)
    when = next(str(facts[name]) for name in ("cron", "rrule", "interval") if name in facts)
    return f"{when} {facts.get('timezone') or 'UTC'} ({'on' if schedule.active else 'paused'})"
