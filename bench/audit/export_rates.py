"""Measure exports of a whole ledger: rows a second, and the memory of the process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import text

from db.session import rows_of
from db.timed_reads import open_reader
from presswork.settings import ROOT

FORMATS = ("jsonl", "csv", "parquet")
_RUN = """
import resource, sys
from presswork.cli import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def export_rates(url: str) -> Sequence[Mapping[str, str | float]]:
    """Export all generations in each format; return the rates and the peak memory in megabytes."""
    ledger = open_reader(url)
    count = int(rows_of(ledger, text("SELECT COUNT(*) FROM generations"))[0][0])
    ledger.dispose()
    with tempfile.TemporaryDirectory(prefix="presswork-export-") as folder:
        return [_export(url, Path(folder), each, count) for each in FORMATS]


def _export(url: str, folder: Path, suffix: str, count: int) -> Mapping[str, str | float]:
    target = folder / f"all.{suffix}"
    environment = {**os.environ, "PRESSWORK_DATABASE_URL": url}
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", _RUN, "export", "--to", str(target)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    if ended.returncode:
        print(ended.stderr, file=sys.stderr)
    peak = re.search(r"peak (\d+)", ended.stderr)
    size = target.stat().st_size if target.exists() else 0
    target.unlink(missing_ok=True)
    return {
        "export": suffix,
        "rows": count,
        "seconds": round(took, 1),
        "rows/s": round(count / took),
        "MB": round(size / 1e6),
        "peak MB": int(peak[1]) if peak else 0,
    }
