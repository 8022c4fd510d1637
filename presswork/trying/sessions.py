"""Make trials one after the other, with one open endpoint and one cost cap."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from presswork.settings import Settings
from presswork.trying.trials import Asked, Trial, TriedRecord


class TrySession:
    """Makes the trials of one template. Use it as an async context manager, inside one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the endpoint."""

    async def run(
        self,
        asked: Asked,
        *,
        templates_dir: Path | None = None,
        on_record: Callable[[TriedRecord], None] | None = None,
    ) -> Trial:
        """Make a trial; the keys of the first one are those of all. `on_record` is called as each record ends."""
        raise NotImplementedError
