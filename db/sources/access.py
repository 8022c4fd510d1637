"""Open a source, any database that SQLAlchemy has a driver for, for reading only."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import SourceUnreachableError
from db.session import CONNECT_TIMEOUT_S, file_of, make_engine, parse_url, readable_url, reason_of
from db.sources.drivers import prepare_source
from db.sources.read_only import explained, keep_from_writing, reading_options


def open_source(url: str, variable: str = "PRESSWORK_SOURCE_URL") -> Engine:
    """Open a source for reading only; a SQLite file that is missing is an error, not a new empty database.

    `variable` is where the URL came from, for the message. Raises SourceUnreachableError.
    """
    try:
        parsed = parse_url(url)
        engine = make_engine(parsed, read_only=True, connect_args=reading_options(parsed, CONNECT_TIMEOUT_S))
        keep_from_writing(engine)
        file = file_of(parsed)
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError("there is no such file")
        prepare_source(engine)
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                # It opens any file, and notices only when it reads that it is no database.
                connection.exec_driver_sql("SELECT COUNT(*) FROM sqlite_master")
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise SourceUnreachableError(
            f"The source {readable_url(url)} can't be reached: {explained(reason_of(error, url))}. "
            f"Check {variable} and that the database is up."
        ) from None
    return engine
