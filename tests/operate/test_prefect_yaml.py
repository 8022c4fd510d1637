"""prefect.yaml: what it declares, and what is wrong with it told by deployment and field; without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from presswork.errors import ConfigurationError
from presswork.operate.prefect_yaml import Declared, read_declared
from presswork.settings import ROOT

ONE = """
deployments:
  - name: nightly
    entrypoint: flows.product_copy.product_copy
    {line}
"""


def declared(tmp_path: Path, text: str) -> list[Declared]:
    file = tmp_path / "prefect.yaml"
    file.write_text(text, encoding="utf-8")
    return read_declared(file)


def test_each_content_flow_is_declared() -> None:
    found = {one.entrypoint: one for one in read_declared(ROOT / "prefect.yaml")}
    flows = ("product_copy", "support_replies", "newsletter")
    assert set(found) == {f"flows.{name}.{name}" for name in (*flows, "content")}
    for name in flows:
        one = found[f"flows.{name}.{name}"]
        assert one.description
        assert one.enforce_parameter_schema
        assert one.concurrency_limit is not None
        assert (one.concurrency_limit.limit, one.concurrency_limit.collision_strategy) == (1, "CANCEL_NEW")


def test_schedules_have_a_time_zone_a_cap_and_begin_paused() -> None:
    scheduled = [one for one in read_declared(ROOT / "prefect.yaml") if one.schedules]
    schedules = [schedule for one in scheduled for schedule in one.schedules]
    assert [schedule.cron for schedule in schedules] == ["0 3 * * *", "*/15 * * * *", "0 6 * * 1"]
    for schedule in schedules:
        assert schedule.timezone
        assert not schedule.active
    # With the deployment: Prefect drops a schedule's own parameters when its switch is used.
    assert all(one.parameters["options"]["max_cost"] > 0 for one in scheduled)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("schedules: [{slug: late, cron: '0 25 * * *'}]", r"deployment 'nightly', schedule 'late': '0 25 \* \* \*'"),
        ("schedules: [{slug: late, cron: 'at three'}]", "schedule 'late': 'at three'"),
        ("schedules: [{slug: late, cron: '0 3 * * *', timezone: Mars/Olympus}]", "schedule 'late': .*[Tt]ime ?zone"),
        ("schedules: [{slug: late}]", "give one of cron, interval and rrule"),
        ("schedules: [{cron: '0 3 * * *'}]", "schedules.0.slug"),
        ("schedules: [{slug: late, cron: '0 3 * * *', parameters: {}}]", "schedules.0.parameters"),
        ("triggers: []", "`triggers` is not applied by `presswork deploy`"),
        ("concurrency_limit: {limit: 0}", "concurrency_limit.limit"),
        ("concurrency_limit: {limit: 1, collision_strategy: WAIT}", "ENQUEUE"),
        ("entrypoint: flows/product_copy.py:product_copy", "package.module.function"),
    ],
)
def test_mistake_is_told_by_deployment_and_field(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        declared(tmp_path, ONE.format(line=line))


def test_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert [one.name for one in declared(tmp_path, "\ufeff" + ONE.format(line="").lstrip())] == ["nightly"]


def test_file_that_is_no_yaml_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"prefect\.yaml, line 2"):
        declared(tmp_path, "deployments:\n  - {name: [")
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_declared(tmp_path / "prefect.yml")
