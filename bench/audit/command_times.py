"""Time the commands that read a ledger, each a process of its own; and the start alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from sqlalchemy import text

from bench.audit.page_cases import drawn_words
from bench.audit.page_times import PRESSWORK
from db.session import rows_of
from db.timed_reads import open_reader
from presswork.settings import ROOT

TIMES = 7
_KEPT = "SELECT id, flow, step, record_key, run_id FROM generations WHERE id >= '{start}' ORDER BY id LIMIT 1"


def command_times(url: str) -> Mapping[str, Sequence[float]]:
    """Return the seconds of each command, with its start; `start alone` is that of the program and its imports."""
    ledger = open_reader(url)
    (first, last) = rows_of(ledger, text("SELECT MIN(id), MAX(id) FROM generations"))[0]
    draw = random.Random(3)
    low, high = (int(each.replace("-", "")[:12], 16) for each in (first, last))
    moments = (f"{draw.randint(low, high - 1):012x}" for _time in range(TIMES))
    kept = [rows_of(ledger, text(_KEPT.format(start=f"{each[:8]}-{each[8:]}")))[0] for each in moments]
    words = drawn_words(ledger, TIMES)
    ledger.dispose()
    calls = {
        "start alone": [["db", "check"] for _row in kept],
        "history": [["history"] for _row in kept],
        "history RUN": [["history", row.run_id] for row in kept],
        "history --key": [["history", row.step, "--key", row.record_key] for row in kept],
        "show": [["show", row.id] for row in kept],
        "diff": [["diff", one.id, other.id] for one, other in zip(kept, [*kept[1:], kept[0]], strict=True)],
        "cost --by day,flow": [["cost", "--by", "day,flow"] for _row in kept],
        "cost --by template,model": [["cost", "--by", "template,model"] for _row in kept],
        "templates history": [["templates", "history", row.step] for row in kept],
        **{f"search {name}": [["search", each] for each in found] for name, found in words.items()},
    }
    return {name: [_seconds(url, arguments) for arguments in found] for name, found in calls.items()}


def _seconds(url: str, arguments: Sequence[str]) -> float:
    began = time.perf_counter()
    environment = {**os.environ, "PRESSWORK_DATABASE_URL": url}
    ended = subprocess.run(
        [PRESSWORK, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode:
        print(f"{' '.join(arguments)}: {ended.stderr}", file=sys.stderr)
    return time.perf_counter() - began
