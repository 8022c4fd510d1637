"""Time the pages of a real `presswork audit` process over HTTP: query and rendering of each view, and of searches."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote_plus

import httpx2

from bench.audit.page_cases import VALUES, drawn_words, page_cases
from db.timed_reads import open_reader
from presswork.settings import ROOT

PRESSWORK = str(Path(sys.executable).parent / "presswork")
WARM = 3
"""Requests of each view before those that count, with other values."""
STARTS_WITHIN_S = 30.0


@contextmanager
def audit_room(url: str) -> Iterator[httpx2.Client]:
    """Serve a ledger's pages from a process of their own, and yield a client for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PRESSWORK_DATABASE_URL": url}
    command = [PRESSWORK, "audit", "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait(client, server)
            yield client
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def page_times(url: str) -> Mapping[str, Sequence[float]]:
    """Return the seconds of each request, by page or filter."""
    ledger = open_reader(url)
    warm, counted = page_cases(ledger, WARM, seed=2), page_cases(ledger)
    ledger.dispose()
    return _times(url, warm, counted)


def search_times(url: str) -> Mapping[str, Sequence[float]]:
    """Return the seconds of each search, by kind of word."""
    ledger = open_reader(url)
    warm, counted = (
        {name: [f"/generations?words={quote_plus(words)}" for words in found] for name, found in drawn.items()}
        for drawn in (drawn_words(ledger, WARM, seed=2), drawn_words(ledger, VALUES))
    )
    ledger.dispose()
    return _times(url, warm, counted)


def _times(url: str, warm: Mapping[str, Sequence[str]], counted: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    with audit_room(url) as client:
        for path in (path for paths in warm.values() for path in paths):
            client.get(path)
        # Mixed, so that no view has the caches to itself.
        order = [(name, path) for name, paths in counted.items() for path in paths]
        random.Random(0).shuffle(order)
        found: dict[str, list[float]] = {name: [] for name in counted}
        for name, path in order:
            began = time.perf_counter()
            answer = client.get(path)
            found[name].append(time.perf_counter() - began)
            if answer.status_code != 200:
                print(f"{answer.status_code} {path}", file=sys.stderr)
    return found


def _wait(client: httpx2.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            client.get("/static/none")
        except httpx2.TransportError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
