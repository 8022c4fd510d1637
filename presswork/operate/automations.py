"""Install Prefect automations for the runs of deployments with the tag `presswork`.

They mark the runs of crashed workers as crashed, resume these with another worker, end a cancelled run whose worker has
crashed, and report a failed run if PRESSWORK_NOTIFY_BLOCK names a block. Prefect's server executes them. An automation
that is turned off in the UI stays off.
"""

from datetime import timedelta
from typing import Any

from prefect.automations import AutomationCore, CallWebhook, ChangeFlowRunState, EventTrigger, Posture, SendNotification
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from presswork.errors import ConfigurationError
from presswork.settings import load_settings

PREFECT_HEARTBEAT_S = 30
"""The interval of a run's heartbeat; the shortest that Prefect allows. Deploying sets it for the runs."""
HEARTBEAT_VARIABLE = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
CRASHED_AFTER_S = 3 * PREFECT_HEARTBEAT_S
CANCEL_S = 10
"""How long a cancelled run may take to end by itself; the shortest that Prefect allows."""
MOST_ATTEMPTS = 4
"""A run that has crashed this many times is not resumed again: a person should look at it."""

NO_HEARTBEAT = "Its worker is gone: no heartbeat came for 90 seconds."
KILLED = ("*exited with non-zero status code -9*", "*exited with status code: -9*")
"""Prefect's messages when a run's process was killed but its worker runs, as when the kernel is out of memory.

Its runner has used the second since 3.8; both are in use.
"""

HEARTBEAT = "prefect.flow-run.heartbeat"
CANCELLING = "prefect.flow-run.Cancelling"
RESUMING = {f"prefect.flow-run.{state}" for state in ("Suspended", "Resuming")}
"""A suspended run sends no heartbeat until it is due."""
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
OURS = {"prefect.resource.id": "prefect.tag.presswork", "prefect.resource.role": "tag"}
OURS_AND_SHARDS = {**OURS, "prefect.resource.id": "prefect.tag.presswork*"}
"""Shards have another tag: the run that they belong to retries a crashed one, so the automations must not."""
MESSAGE = "{{ flow.name }} / {{ flow_run.name }} ended as {{ flow_run.state.name }}: {{ flow_run|ui_url }}"


async def install_automations() -> list[str]:
    """Create or update the automations on the Prefect server; return the names of those that changed."""
    async with get_client() as client:
        return [one.name for one in _always() if await _apply(client, one)]


async def install_notification() -> list[str]:
    """Create or update the automation that reports failed runs, if PRESSWORK_NOTIFY_BLOCK is set; return its name.

    The list is empty if nothing changed. Raises ConfigurationError if no such block exists.
    """
    block_name = load_settings().notify_block
    if block_name is None:
        return []
    kind, _, name = block_name.partition("/")
    async with get_client() as client:
        try:
            block = await client.read_block_document_by_name(name, kind)
        except ObjectNotFound:
            raise ConfigurationError(
                f"PRESSWORK_NOTIFY_BLOCK: Prefect has no block {block_name!r}. Make one in its UI under Blocks, "
                "and set its type/name, for example slack-webhook/editors."
            ) from None
        action: Any = (
            CallWebhook(block_document_id=block.id, payload=MESSAGE)
            if kind == "webhook"
            else SendNotification(block_document_id=block.id, subject="Presswork: a run failed", body=MESSAGE)
        )
        trigger = _trigger({"prefect.flow-run.Failed", "prefect.flow-run.Crashed"})
        description = "Sent with the block in PRESSWORK_NOTIFY_BLOCK."
        wanted = _automation("tell of a run that failed", description, trigger, action)
        return [wanted.name] if await _apply(client, wanted) else []


def _always() -> list[AutomationCore]:
    return [
        _automation(
            "a run whose worker is gone has crashed",
            "The run has sent no heartbeat for 90 seconds. It is not suspended and has not ended.",
            _trigger({HEARTBEAT, CANCELLING, *RESUMING, *ENDS}, after={HEARTBEAT}, missing_for_s=CRASHED_AFTER_S),
            ChangeFlowRunState(state=StateType.CRASHED, message=NO_HEARTBEAT),
        ),
        _automation(
            "a run that crashed goes on",
            "Another worker resumes a run whose worker or process was killed, up to three times.",
            _trigger(
                {"prefect.flow-run.Crashed"},
                labels={
                    "prefect.state-message": [NO_HEARTBEAT, *KILLED],
                    "prefect.run-count": [str(number) for number in range(1, MOST_ATTEMPTS)],
                },
            ),
            ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message="Resumed after a crash."),
        ),
        _automation(
            "a cancelled run whose worker is gone is cancelled",
            "A run has not ended within 10 seconds of its cancellation.",
            _trigger(ENDS, after={CANCELLING}, missing_for_s=CANCEL_S, of=OURS_AND_SHARDS),
            ChangeFlowRunState(state=StateType.CANCELLED, message="Cancelled. Its worker did not report that."),
        ),
    ]


def _automation(name: str, description: str, trigger: EventTrigger, action: Any) -> AutomationCore:
    return AutomationCore(name=f"presswork: {name}", description=description, trigger=trigger, actions=[action])


def _trigger(
    expect: set[str],
    *,
    after: set[str] | None = None,
    missing_for_s: int = 0,
    labels: dict[str, list[str]] | None = None,
    of: dict[str, str] = OURS,
) -> EventTrigger:
    """Fire at one of the expected events or, with a time, if none of them follows in that time `after` another."""
    return EventTrigger(
        after=after or set(),
        expect=expect,
        match={"prefect.resource.id": "prefect.flow-run.*", **(labels or {})},
        match_related=of,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive if missing_for_s else Posture.Reactive,
        within=timedelta(seconds=missing_for_s),
    )


async def _apply(client: PrefectClient, wanted: AutomationCore) -> bool:
    found = await client.read_automations_by_name(wanted.name)
    if not found:
        await client.create_automation(wanted)
        return True
    (old, *doubles) = found
    for double in doubles:
        await client.delete_automation(double.id)
    if _facts(old) == _facts(wanted):
        return bool(doubles)
    await client.update_automation(old.id, wanted.model_copy(update={"enabled": old.enabled}))
    return True


def _facts(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(include={"description", "trigger", "actions"}, exclude={"trigger": {"id"}})
