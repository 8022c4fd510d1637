"""Schedules over a change of clocks, by Prefect's own dates: no pause, nothing twice, the hour that was meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

from presswork.operate.prefect_yaml import Schedule, read_declared
from presswork.settings import ROOT

BERLIN = ZoneInfo("Europe/Berlin")
YEAR = datetime.now(UTC).year + 1  # a rule begins when it is deployed
DAY = timedelta(days=1)
SERVERS = (CronSchedule, IntervalSchedule, RRuleSchedule)
SHIPPED = {schedule.slug: schedule for one in read_declared(ROOT / "prefect.yaml") for schedule in one.schedules}


def last_sunday(month: int) -> datetime:
    """When the clocks of Berlin change: at 1:00 UTC on the last Sunday of March and October."""
    end = datetime(YEAR, month, 31, 1, tzinfo=UTC)
    return end - timedelta(days=end.isoweekday() % 7)


SPRING, AUTUMN = last_sunday(3), last_sunday(10)


async def dates(schedule: Schedule, around: datetime) -> list[datetime]:
    """When Prefect's server would start it, a day before and a day after."""
    built = schedule.built().schedule
    kind = next(kind for kind in SERVERS if kind.__name__ == type(built).__name__)
    found = await kind(**built.model_dump()).get_dates(start=around - DAY, end=around + DAY)
    return sorted(datetime.fromtimestamp(moment.timestamp(), UTC) for moment in found)


def steps(moments: list[datetime]) -> set[timedelta]:
    return {later - earlier for earlier, later in pairwise(moments)}


@pytest.mark.parametrize("around", [AUTUMN, SPRING])
@pytest.mark.parametrize(
    ("given", "every"),
    [
        ({"cron": "*/15 * * * *"}, 15),
        ({"cron": "@hourly"}, 60),
        ({"interval": "PT15M"}, 15),
        ({"interval": "PT1H"}, 60),
        ({"rrule": "FREQ=MINUTELY;INTERVAL=15"}, 15),
        ({"rrule": "RRULE:FREQ=HOURLY"}, 60),
    ],
)
async def test_schedule_that_repeats_all_day_does_not_pause_when_clocks_change(
    given: dict[str, Any], every: int, around: datetime
) -> None:
    schedule = Schedule(slug="often", timezone="Europe/Berlin", **given)
    moments = await dates(schedule, around)
    assert len(moments) >= 24
    assert steps(moments) == {timedelta(minutes=every)}


@pytest.mark.parametrize(
    "given",
    [
        {"cron": "0 7 * * *"},
        {"cron": "*/15 8-18 * * *"},
        {"cron": "0 * * * 1-5"},
        {"interval": "P1D"},
        {"rrule": "FREQ=HOURLY;BYHOUR=7"},
        # Its minutes are not those of UTC.
        {"cron": "0 * * * *", "timezone": "Australia/Adelaide"},
    ],
)
def test_schedule_that_names_an_hour_or_a_day_keeps_its_time_zone(given: dict[str, Any]) -> None:
    schedule = Schedule(slug="named", **{"timezone": "Europe/Berlin", **given})
    assert schedule.built().schedule.model_dump()["timezone"] == schedule.timezone


@pytest.mark.parametrize("around", [AUTUMN, SPRING])
async def test_shipped_schedules_are_on_time_when_clocks_change(around: datetime) -> None:
    assert steps(await dates(SHIPPED["quarter-hourly"], around)) == {timedelta(minutes=15)}
    assert SHIPPED["quarter-hourly"].timezone == "UTC", "`prefect deploy` takes it from the file"
    nights = [moment.astimezone(BERLIN) for moment in await dates(SHIPPED["nightly"], around)]
    assert [(night.hour, night.minute) for night in nights] == [(3, 0)] * len(nights)
    assert len({night.date() for night in nights}) == len(nights) >= 2
    (monday,) = [moment.astimezone(BERLIN) for moment in await dates(SHIPPED["monday-morning"], around + DAY)]
    assert (monday.isoweekday(), monday.hour) == (1, 6)


async def test_run_of_an_hour_that_spring_leaves_out_starts_once() -> None:
    # An hour early up to Python 3.12, an hour late from 3.13 on: docs/operations.md says so.
    found = await dates(Schedule(slug="missing", cron="30 2 * * *", timezone="Europe/Berlin"), SPRING)
    times = [moment.astimezone(BERLIN).strftime("%H:%M") for moment in found]
    assert times in (["02:30", "01:30", "02:30"], ["02:30", "03:30", "02:30"])


def test_time_zone_that_is_none_is_refused_though_it_would_not_be_used() -> None:
    with pytest.raises(ValueError, match="Mars"):
        Schedule(slug="x", interval=timedelta(minutes=15), timezone="Mars/Olympus").built()
