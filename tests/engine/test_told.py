"""What Prefect is told of a run: an event at its end, and assets. Ids and counts, no text, no password."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prefect.assets import Asset
from prefect.blocks.system import Secret
from sqlalchemy import make_url

from flows.engine.report.assets import asset_key
from flows.errors import MissingKeyError
from flows.support_replies import support_replies
from tests.engine.workshop import Workshop, eventually

pytestmark = pytest.mark.prefect


async def events(api: str, name: str, resource: str) -> list[dict[str, Any]]:
    """The events of a name about a resource, when the server has written one."""

    async def look() -> list[dict[str, Any]]:
        wanted = {"filter": {"event": {"prefix": [name]}, "resource": {"id": [resource]}}, "limit": 50}
        async with httpx.AsyncClient() as client:
            found: list[dict[str, Any]] = (await client.post(f"{api}/events/filter", json=wanted)).json()["events"]
            return found

    found: list[dict[str, Any]] = await eventually(look, bool)
    return found


async def asset_of(api: str, key: str, run_id: str) -> dict[str, Any]:
    """The event by which a run told of an asset: ledgers of other tests have the same name, and so the same keys."""

    async def look() -> list[dict[str, Any]]:
        found = await events(api, "prefect.asset.materialization.succeeded", key)
        return [one for one in found if one["payload"]["run_id"] == run_id]

    (asset,) = await eventually(look, bool)
    return dict(asset)


async def test_run_that_ends_is_an_event(workshop: Workshop, prefect_api: str) -> None:
    workshop.items({"1": "Name: Teapot", "2": None})
    workshop.template("{{ (record.name * 1) | length }}")
    summary = await workshop.run()
    (event,) = await events(prefect_api, "presswork.run.completed", f"presswork.run.{summary.run_id}")
    assert (event["payload"]["succeeded"], event["payload"]["failed"]) == (1, 1)
    flow_run_id = workshop.flow_run_of(summary.run_id)
    assert f"prefect.flow-run.{flow_run_id}" in {one["prefect.resource.id"] for one in event["related"]}

    made = asset_key(make_url(workshop.ledger_url), "current_content", "note", "note")
    asset = await asset_of(prefect_api, made, summary.run_id)
    made_from = {one["prefect.resource.id"] for one in asset["related"] if one["prefect.resource.role"] == "asset"}
    ledger, source = make_url(workshop.ledger_url), make_url(workshop.source_url)
    assert made_from == {asset_key(source), asset_key(ledger, "templates", "note")}


async def test_assets_of_a_later_step_are_made_from_the_one_before(shop: Workshop, prefect_api: str) -> None:
    summary = await support_replies()
    ledger = make_url(shop.ledger_url)
    triage = asset_key(ledger, "current_content", "support_replies", "support_triage")
    reply = asset_key(ledger, "current_content", "support_replies", "support_reply")
    asset = await asset_of(prefect_api, reply, summary.run_id)
    assert triage in {one["prefect.resource.id"] for one in asset["related"]}


def test_asset_key_holds_no_user_password_or_query() -> None:
    key = asset_key(make_url("postgresql+psycopg://me:secret@db.example:5432/shop?sslpassword=other"), "a b")
    assert key == "postgresql://db.example-5432/shop/a-b"
    assert Asset(key=key).key == key


async def test_run_that_fails_is_an_event(
    workshop: Workshop, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "sandbox")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-invalid")
    with pytest.raises(Exception, match="ANTHROPIC_API_KEY"):
        await workshop.run()
    run_id = workshop.value("SELECT id FROM runs")
    assert await events(prefect_api, "presswork.run.failed", f"presswork.run.{run_id}")


async def test_key_comes_from_a_secret_block(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.numbered(1)
    monkeypatch.setenv("PRESSWORK_API_KEY_BLOCK", "presswork-key")
    with pytest.raises(MissingKeyError, match="presswork-key"):
        await workshop.run()
    await Secret(value="sk-ant-api03-inablock").asave("presswork-key", overwrite=True)
    assert (await workshop.run()).succeeded == 1
    assert "sk-ant-api03-inablock" not in str(workshop.rows("SELECT * FROM runs"))


def test_names_in_other_scripts_are_assets_of_their_own() -> None:
    ledger = make_url("sqlite:///ledger.sqlite")
    names = ["商品", "手紙", "Käse", "हिन्दी", "two words", "q&a"]
    keys = [asset_key(ledger, "templates", name) for name in names]
    assert len(set(keys)) == len(names)
    assert keys[0].endswith("/商品")
    assert [Asset(key=key).key for key in keys] == keys
