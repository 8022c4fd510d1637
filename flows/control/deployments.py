"""Deployments: what Prefect can start, made to be what prefect.yaml and the templates say, and nothing else touched.

Deploying again changes only what differs. A deployment that can't be made is named, and keeps no other from being made.
A schedule's switch belongs to the operator: it is set when the schedule is
made, and then left as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.exceptions import ObjectNotFound

from db.words import POOL, SHARDS
from flows.control.automations import install_automations, install_notification
from flows.control.declared import FILE, read_declared
from flows.control.refused import concerns_all, reason
from flows.control.wanted import CONTENT, PULL_STEPS, Wanted, of_declared, of_templates
from flows.engine.orchestration.deployed import ledger_name, ledger_of
from flows.engine.orchestration.origin import code_version
from flows.engine.orchestration.prefect_pages import read_all
from flows.errors import ConfigurationError
from flows.settings import ROOT, Settings, load_settings

NOTIFICATION = "the automation that tells of failed runs"

Say = Callable[[str], None]
Change = Literal["created", "updated", "unchanged", "removed"]


@dataclass
class Deployed:
    """What a deploy has come to: changes by deployment, errors by template, schedules that are paused.

    `refused` says what else could not be made, and why: a deployment whose flow can't be loaded, or that Prefect
    refuses, or the automation that tells of failed runs.
    """

    changes: dict[str, Change] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    paused: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The deployments that there are now."""
        return [name for name, change in self.changes.items() if change != "removed"]

    @property
    def is_whole(self) -> bool:
        """Whether all could be made."""
        return not (self.left_out or self.refused)


async def deploy_all(*, work_pool: str = POOL, say: Say) -> list[str]:
    """Make all deployments on the Prefect server that is set up, and return their names; see `deploy`."""
    return (await deploy(work_pool=work_pool, say=say)).names


async def deploy(*, work_pool: str = POOL, say: Say, file: Path = ROOT / FILE) -> Deployed:
    """Make the deployments of prefect.yaml, and one for each template that selects its own records.

    What can't be made is left out and said, and its old deployment stays: a template with a mistake, or with a name
    that Prefect refuses; a flow that can't be loaded; whatever else Prefect's server refuses. Deployments that an
    earlier call made of templates that are gone are removed. Raises ConfigurationError for a mistake in prefect.yaml
    or a pool that is not there, before anything is changed.
    """
    settings = load_settings()
    made = Deployed()
    wanted = _wanted(settings, file, made)
    async with get_client() as client:
        await _require_pool(client, work_pool)
        known = await _known(client)
        for one in wanted:
            await _make(client, known.get(one.full_name), one, work_pool, made)
        kept = {*made.changes, *made.refused, *(f"{CONTENT}/{name}" for name in made.left_out)}
        for name, gone in known.items():
            if name not in kept and _is_of_template(name, gone, settings):
                await client.delete_deployment(gone.id)
                made.changes[name] = "removed"
    await _automate(made, say)
    _tell(made, say)
    return made


def _wanted(settings: Settings, file: Path, made: Deployed) -> list[Wanted]:
    """Say what is to be made; what can't be is named in `made`."""
    found: dict[str, Wanted] = {}
    for declared in read_declared(file):
        try:
            one = of_declared(declared, settings)
        except Exception as error:  # noqa: BLE001 - the boundary of one deployment: a flow's file is the user's
            made.refused[f"{declared.entrypoint}/{declared.name}"] = reason(error)
        else:
            found[one.full_name] = one
    taken = {*found, *(f"{name}{SHARDS}" for name in found)}
    for one in of_templates(settings, made.left_out):
        if one.full_name in taken:
            made.left_out[one.name] = f"{FILE} already has a deployment {one.full_name!r}. Rename the template's file."
        else:
            found[one.full_name] = one
    return list(found.values())


async def _known(client: PrefectClient) -> dict[str, DeploymentResponse]:
    """Read all deployments by their full names."""
    flows = {flow.id: flow.name for flow in await read_all(client.read_flows)}
    found = await read_all(client.read_deployments, sort=DeploymentSort.CREATED_DESC)
    return {f"{flows.get(one.flow_id)}/{one.name}": one for one in found}


async def _make(
    client: PrefectClient, found: DeploymentResponse | None, wanted: Wanted, pool: str, made: Deployed
) -> None:
    try:
        made.changes[wanted.full_name] = await _apply(client, found, wanted, pool, made)
    except Exception as error:
        # The boundary of one deployment; what no deployment could be made with goes up.
        if concerns_all(error):
            raise
        made.refused[wanted.full_name] = reason(error)


async def _automate(made: Deployed, say: Say) -> None:
    for automation in await install_automations():
        say(f"Automation {automation!r}: set up.")
    try:
        for automation in await install_notification():
            say(f"Automation {automation!r}: set up.")
    except ConfigurationError as error:
        # On a new machine the block can be made only when the server is up.
        made.refused[NOTIFICATION] = str(error)


def _tell(made: Deployed, say: Say) -> None:
    for name, change in made.changes.items():
        if change != "unchanged":
            say(f"Deployment {name}: {change}.")
    same = sum(change == "unchanged" for change in made.changes.values())
    if same:
        say(f"{same} of {len(made.names)} deployments are as they were.")
    for name, error in made.left_out.items():
        say(f"Template {name}: not deployed. {error}")
    for name, error in made.refused.items():
        say(f"Not made: {name}. {error}")
    if made.paused:
        say(f"Schedules that are paused, and spend nothing: {', '.join(made.paused)}. Turn one on in the Prefect UI.")


async def _require_pool(client: PrefectClient, name: str) -> None:
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        raise ConfigurationError(
            f"There is no work pool {name!r} on this Prefect server. `presswork up` makes the one of this machine; or "
            f"make it with `prefect work-pool create {name} --type process`, or name another with --pool."
        ) from None


async def _apply(
    client: PrefectClient, found: DeploymentResponse | None, wanted: Wanted, pool: str, made: Deployed
) -> Change:
    if found is None:
        await _create(client, wanted, pool)
        made.paused += [_when(wanted, schedule) for schedule in wanted.schedules if not schedule.active]
        return "created"
    change = await _update(client, found, wanted, pool)
    slugs = {schedule.slug for schedule in wanted.schedules}
    made.paused += [_when(wanted, one) for one in found.schedules if not one.active and one.slug in slugs]
    return change


async def _create(client: PrefectClient, wanted: Wanted, pool: str) -> None:
    await client.create_deployment(
        flow_id=await client.create_flow_from_name(wanted.flow),
        name=wanted.name,
        version=code_version(),
        schedules=wanted.schedules,
        concurrency_limit=wanted.limit.limit if wanted.limit else None,
        concurrency_options=_options(wanted),
        parameters=wanted.parameters,
        description=wanted.description,
        work_pool_name=pool,
        tags=wanted.tags,
        entrypoint=wanted.entrypoint,
        parameter_openapi_schema=wanted.form,
        pull_steps=PULL_STEPS,
        enforce_parameter_schema=wanted.enforce,
        job_variables=wanted.job_variables,
    )


async def _update(client: PrefectClient, found: DeploymentResponse, wanted: Wanted, pool: str) -> Change:
    changed = await _sync_schedules(client, found, wanted.schedules)
    if _facts_of(found) != _facts(wanted, pool):
        facts = _facts(wanted, pool)
        facts["concurrency_options"] = _options(wanted)
        await client.update_deployment(found.id, DeploymentUpdate(**facts))
        changed = True
    return "updated" if changed else "unchanged"


def _facts(wanted: Wanted, pool: str) -> dict[str, Any]:
    return {
        "version": code_version(),
        "description": wanted.description,
        "parameters": wanted.parameters,
        "tags": wanted.tags,
        "work_pool_name": pool,
        "entrypoint": wanted.entrypoint,
        "parameter_openapi_schema": wanted.form,
        "enforce_parameter_schema": wanted.enforce,
        "pull_steps": PULL_STEPS,
        "job_variables": wanted.job_variables,
        "concurrency_limit": wanted.limit.limit if wanted.limit else None,
        "concurrency_options": wanted.limit.model_dump(exclude={"limit"}) if wanted.limit else None,
    }


def _facts_of(found: DeploymentResponse) -> dict[str, Any]:
    limit, options = found.global_concurrency_limit, found.concurrency_options
    return {
        "version": found.version,
        "description": found.description,
        "parameters": found.parameters,
        "tags": found.tags,
        "work_pool_name": found.work_pool_name,
        "entrypoint": found.entrypoint,
        "parameter_openapi_schema": found.parameter_openapi_schema,
        "enforce_parameter_schema": found.enforce_parameter_schema,
        "pull_steps": found.pull_steps or [],
        "job_variables": found.job_variables,
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": options.model_dump(mode="json") if options else None,
    }


def _options(wanted: Wanted) -> ConcurrencyOptions | None:
    return ConcurrencyOptions(**wanted.limit.model_dump(exclude={"limit"})) if wanted.limit else None


async def _sync_schedules(
    client: PrefectClient, found: DeploymentResponse, wanted: list[DeploymentScheduleCreate]
) -> bool:
    """Bring the schedules that have a slug to what is wanted; those that people made in the UI have none, and stay."""
    known: dict[str | None, DeploymentSchedule] = {
        schedule.slug: schedule for schedule in found.schedules if schedule.slug
    }
    changed = False
    for one in wanted:
        old = known.pop(one.slug, None)
        if old is None:
            await client.create_deployment_schedules(found.id, [one])
        elif _differ(old, one):
            await client.update_deployment_schedule(
                found.id, old.id, active=old.active, schedule=one.schedule, slug=one.slug
            )
        else:
            continue
        changed = True
    for gone in known.values():
        await client.delete_deployment_schedule(found.id, gone.id)
        changed = True
    return changed


def _differ(old: DeploymentSchedule, new: DeploymentScheduleCreate) -> bool:
    # An interval's anchor is the moment of its making where none is given.
    plain = [one.schedule.model_dump(mode="json", exclude={"anchor_date"}) for one in (old, new)]
    return plain[0] != plain[1]


def _when(wanted: Wanted, schedule: DeploymentSchedule | DeploymentScheduleCreate) -> str:
    when = getattr(schedule.schedule, "cron", None)
    return f"{wanted.full_name} ({when})" if when else wanted.full_name


def _is_of_template(name: str, found: DeploymentResponse, settings: Settings) -> bool:
    """Whether an earlier deploy made it, for this ledger, of a template."""
    return (
        name == f"{CONTENT}/{found.name}"
        and found.parameters == {"template": found.name}
        and ledger_of(found) == ledger_name(settings)
    )
