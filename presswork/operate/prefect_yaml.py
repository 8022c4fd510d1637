"""Read the deployments that prefect.yaml declares, and reject what `presswork deploy` does not apply.

Prefect ignores unknown keys. Here a typo is an error, before anything is deployed.
"""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import construct_schedule
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from presswork.errors import ConfigurationError
from presswork.prompts.names import name_fault

FILE = "prefect.yaml"
EVERY_HOUR = re.compile(r"\s*(\S+(\s+\*){4}|@hourly)\s*")
"""Crons that name only minutes."""
REPEATS = re.compile(r"(RRULE:)?FREQ=(HOURLY(;INTERVAL=1)?|(MINUTELY|SECONDLY)(;INTERVAL=\d+)?)")
"""Rules that name no hour and no day."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Schedule(_Strict):
    """When a deployment runs. A later deploy recognizes a schedule by its slug.

    One that repeats all day is made in UTC and ignores its `timezone`: Prefect runs an hour that the clocks repeat only
    once, so a schedule of every 15 minutes in local time would pause for 75. All other moments are the same.
    """

    slug: str = Field(min_length=1)
    cron: str | None = None
    interval: timedelta | None = None
    rrule: str | None = None
    timezone: str | None = None
    active: bool = True

    def built(self) -> DeploymentScheduleCreate:
        """Make Prefect's schedule from it; ValueError if it can never fire."""
        given = self.model_dump(include={"cron", "interval", "rrule"}, exclude_none=True)
        if len(given) != 1:
            raise ValueError("give one of cron, interval and rrule")
        schedule = construct_schedule(**given, timezone=self.timezone)
        return DeploymentScheduleCreate(
            schedule=construct_schedule(**given, timezone="UTC") if self._repeats_all_day() else schedule,
            active=self.active,
            slug=self.slug,
        )

    def _repeats_all_day(self) -> bool:
        """Whether it names no hour or day, so that UTC makes a difference only when clocks change."""
        if self.interval is not None:
            return self.interval < timedelta(days=1)
        repeats = EVERY_HOUR.fullmatch(self.cron or "") or REPEATS.fullmatch(self.rrule or "")
        return bool(repeats) and self.timezone is not None and _whole_hours_from_utc(self.timezone)


def _whole_hours_from_utc(timezone: str) -> bool:
    """Whether a time zone differs from UTC by whole hours, in winter and in summer."""
    halves = (datetime(2026, month, 1, tzinfo=ZoneInfo(timezone)).utcoffset() for month in (1, 7))
    return not any((offset or timedelta()) % timedelta(hours=1) for offset in halves)


class ConcurrencyLimit(_Strict):
    """How many runs of a deployment may run at once, and what happens to the next one."""

    limit: PositiveInt
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int | None = Field(default=None, ge=60, le=86_400)


class WorkPool(_Strict):
    """Where its runs execute. `prefect deploy` uses this name; `presswork deploy` uses its `--pool`."""

    name: str
    job_variables: dict[str, Any] = Field(default_factory=dict)


def _nameable(name: str) -> str:
    if fault := name_fault(name):
        raise ValueError(fault)
    return name


class Declared(_Strict):
    """One deployment of prefect.yaml."""

    name: Annotated[str, AfterValidator(_nameable)]
    entrypoint: str = Field(pattern=r"^\w+(\.\w+)+$")
    description: str | None = None
    tags: list[str] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)
    work_pool: WorkPool | None = None
    schedules: list[Schedule] = Field(default_factory=list)
    concurrency_limit: ConcurrencyLimit | None = None
    enforce_parameter_schema: bool = True


def read_declared(file: Path) -> list[Declared]:
    """Read prefect.yaml; ConfigurationError names the deployment and the field that is wrong."""
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{FILE}{line}: it is not valid YAML: {getattr(error, 'problem', error)}.") from None
    found = data.get("deployments") if isinstance(data, dict) else None
    return [_read(item, number) for number, item in enumerate(found or [], start=1)]


def _read(item: Any, number: int) -> Declared:
    name = item.get("name") if isinstance(item, dict) else None
    where = f"{FILE}, deployment {name or number!r}"
    try:
        declared = Declared.model_validate(item)
    except ValidationError as error:
        wrong = "; ".join(_fault(fault["loc"], fault["type"], fault["msg"]) for fault in error.errors())
        raise ConfigurationError(f"{where}: {wrong}.") from None
    for schedule in declared.schedules:
        try:
            schedule.built()
        except ValueError as error:
            raise ConfigurationError(f"{where}, schedule {schedule.slug!r}: {_reason(schedule, error)}.") from None
    return declared


def _fault(location: tuple[int | str, ...], kind: str, message: str) -> str:
    field = ".".join(map(str, location))
    if kind == "extra_forbidden":
        return f"`{field}` is not applied by `presswork deploy` (`prefect deploy` may apply it)"
    if location == ("entrypoint",) and kind == "string_pattern_mismatch":
        return "entrypoint: write the flow as package.module.function, such as flows.product_copy.product_copy"
    return f"{field}: {message.removeprefix('Value error, ').rstrip('.')}"


def _reason(schedule: Schedule, error: ValueError) -> str:
    faults = error.errors(include_url=False) if isinstance(error, ValidationError) else []
    said = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in faults) or str(error)
    given = schedule.cron or schedule.rrule
    return f"{given!r}: {said}" if given else said
