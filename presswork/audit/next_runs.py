"""Ask Prefect's server which of our flow runs come next, within a second, or do without.

The overview shows them if it can. Nothing here needs Prefect to be installed, or its server to answer.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedTooLongError
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, TypeAdapter

from db.machine import monotonic_s
from db.words import TAG
from presswork.addresses import is_loopback

WITHIN_S = 1.0
ANSWER_KEPT_S = 10.0
"""How long an answer is shown again, also none: a server that hangs costs a reader one second, not each page one."""
GIVEN_UP_AFTER_S = 10.0
"""How long an answer may take that nobody waits for any more."""
SHOWN_NEXT = 10
CLOUD_API, CLOUD_UI = "https://api.prefect.cloud/api", "https://app.prefect.cloud"
_NO_ANSWER = (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError, ImportError)


@dataclass(frozen=True)
class PrefectApi:
    """The API of a Prefect server, and what it wants to know of those who ask."""

    url: str
    auth_string: str | None = None
    api_key: str | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The credentials as a header."""
        if self.auth_string:
            return {"Authorization": f"Basic {base64.b64encode(self.auth_string.encode()).decode()}"}
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    @property
    def ui_url(self) -> str:
        """The address of its UI."""
        url = self.url.rstrip("/")
        if url.startswith(CLOUD_API):
            path = url.removeprefix(CLOUD_API)
            return CLOUD_UI + path.replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")
        return url.removesuffix("/api")

    def __repr__(self) -> str:
        return f"PrefectApi({self.url!r})"


@dataclass(frozen=True)
class NextRun:
    """A flow run that is scheduled: its names in Prefect, when it is due, and its page in Prefect's UI."""

    id: str
    name: str
    deployment: str | None
    at: datetime
    state: str
    url: str


class _FlowRun(BaseModel):
    id: str
    name: str
    deployment_id: str | None = None
    next_scheduled_start_time: datetime | None = None
    expected_start_time: datetime | None = None
    state_name: str | None = None


class _Deployment(BaseModel):
    id: str
    name: str


_FLOW_RUNS, _DEPLOYMENTS = TypeAdapter(list[_FlowRun]), TypeAdapter(list[_Deployment])


class NextRuns:
    """Answers which runs come next; None if there is no server, or it has not answered in time."""

    def __init__(self, find_api: Callable[[], PrefectApi | None]) -> None:
        self._find_api = find_api
        self._lock = Lock()
        # A timeout of a request limits each of its steps, not all: so it is waited for.
        self._thread = ThreadPoolExecutor(1, "presswork-next-runs")
        self._asked: Future[Sequence[NextRun] | None] | None = None
        self._asked_at = 0.0

    def __call__(self) -> Sequence[NextRun] | None:
        """Return the next run of each deployment, the earliest first."""
        with self._lock:
            asked = self._asked
            if asked is None or (asked.done() and monotonic_s() - self._asked_at > ANSWER_KEPT_S):
                asked = self._asked = self._thread.submit(self._ask)
                self._asked_at = monotonic_s()
            left_s = self._asked_at + WITHIN_S - monotonic_s()
        try:
            return asked.result(max(left_s, 0))
        except WaitedTooLongError:
            return None

    def close(self) -> None:
        """Ask nothing any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ask(self) -> Sequence[NextRun] | None:
        try:
            api = self._find_api()
            return None if api is None else _read_next(api)
        except _NO_ANSWER:
            return None


def _read_next(api: PrefectApi) -> Sequence[NextRun]:
    parts = urlsplit(api.url)
    # As for every request to this machine: loading certificates takes longer, and no proxy may stand between.
    is_local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    base, until = api.url.rstrip("/"), monotonic_s() + GIVEN_UP_AFTER_S
    with httpx2.Client(headers=api.headers, timeout=WITHIN_S, verify=not is_local, trust_env=not is_local) as client:

        def ask(path: str, body: object) -> bytes:
            with client.stream("POST", f"{base}/{path}/filter", json=body) as answer:
                found = bytearray()
                for part in answer.raise_for_status().iter_bytes():
                    found += part
                    if monotonic_s() > until:
                        raise TimeoutError
                return bytes(found)

        scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}, "tags": {"all_": [TAG]}}
        runs = _FLOW_RUNS.validate_json(
            ask("flow_runs", {"flow_runs": scheduled, "sort": "NEXT_SCHEDULED_START_TIME_ASC"})
        )
        first: dict[str, _FlowRun] = {}
        for run in runs:
            first.setdefault(run.deployment_id or run.id, run)
        named = [run.deployment_id for run in first.values() if run.deployment_id]
        found = _DEPLOYMENTS.validate_json(ask("deployments", {"deployments": {"id": {"any_": named}}}))
    names = {deployment.id: deployment.name for deployment in found}
    return [
        NextRun(
            run.id,
            run.name,
            names.get(run.deployment_id or ""),
            due,
            run.state_name or "",
            f"{api.ui_url}/runs/flow-run/{run.id}",
        )
        for run in first.values()
        if (due := run.next_scheduled_start_time or run.expected_start_time)
    ][:SHOWN_NEXT]
