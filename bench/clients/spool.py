"""Read a view of many rows: as a run does, into a spool, or with a cursor that stores nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from bench.clients.client import Options, run_client
from bench.material import VIEW
from bench.meter import Meter, Sample
from db.sources import select
from db.sources.access import open_source
from db.sources.spool import RunSpools
from db.sources.statements import Query

AT_ONCE = 500


def run_spool(meter: Meter, _options: Options) -> Sample:
    """Read the view as a run does: into a spool, with a check of its keys, and then all pages of the spool."""
    engine = open_source(os.environ["PRESSWORK_SOURCE_URL"])
    with tempfile.TemporaryDirectory() as folder:
        spools = RunSpools(Path(folder), "run")
        meter.start()
        select.spool(engine, Query("bench", VIEW, ("id",), {}), lambda: spools.writing("goods"))
        read = sum(len(page) for page in spools.open("goods").pages(AT_ONCE))
        sample = Sample(records=read, succeeded=read)
        meter.read(sample)
        spools.close()
    return sample


def run_cursor(meter: Meter, _options: Options) -> Sample:
    """Read the view with the driver alone, and store nothing."""
    url = make_url(os.environ["PRESSWORK_SOURCE_URL"])
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    meter.start()
    sample = Sample()
    with psycopg.connect(plain) as connection, connection.cursor("bench") as cursor:
        cursor.execute(VIEW)
        while rows := cursor.fetchmany(AT_ONCE):
            sample.records += len(rows)
    sample.succeeded = sample.records
    meter.read(sample)
    return sample


if __name__ == "__main__":
    run_client({"spool": run_spool, "cursor": run_cursor})
