"""Set up Prefect's client in this process. Loading Prefect takes seconds, so conftest.py imports this module late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings


@contextmanager
def prefect_at(url: str, certificate: str) -> Iterator[None]:
    """Have Prefect use this API, in this process and in processes that it starts."""
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_SSL_CERT_FILE: certificate, PREFECT_API_URL: url}),
    ):
        patch.setenv("PREFECT_API_URL", url)
        yield


def drain() -> None:
    """Let Prefect's threads send the server what they still have: after its end they would try for a minute."""
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=10)
