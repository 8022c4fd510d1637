"""The server of one command, as a context: the command begins it early, waits for it late, and lets it go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from presswork.operate.command_server.held_server import HeldServer, ServerPlan, TellWaiting, hold_server, say_nothing
from presswork.operate.prefect_server import ServerStartError


class CommandServer:
    """The server of one command, as a context: it is let go at the end, however that comes."""

    def __init__(self, plan: ServerPlan) -> None:
        self._plan = plan
        self._held: HeldServer | None = None

    def begin(self) -> None:
        """Find the server, or start one that need not answer yet. It then starts while this command does other things.

        Raises ConfigurationError if the state folder can't be written.
        """
        if self._held is None:
            self._held = hold_server(self._plan)

    def answering(self, waiting: TellWaiting = say_nothing) -> str:
        """Wait until the server answers, and return the URL of its API; an earlier one that does not is replaced.

        `waiting` is called repeatedly with the seconds that have passed. Raises ServerStartError if it does not start.
        """
        self.begin()
        assert self._held is not None
        try:
            self._held.wait(waiting)
        except ServerStartError:
            failed, self._held = self._held, None
            failed.let_go(failed=failed.child is not None)
            if failed.child is not None:
                raise
            self._held = hold_server(self._plan, failed.record)
            return self.answering(waiting)
        return self._held.record.api

    @property
    def is_starting(self) -> bool:
        """Whether this command has started it, so that its first answer takes a while."""
        return self._held is not None and self._held.child is not None

    @property
    def note(self) -> str | None:
        """Why an earlier server could not be used."""
        return self._held.note if self._held else None

    @property
    def stays_s(self) -> float:
        """How long it stays without a command; 0 if it ends with the last one."""
        return self._held.stays_s if self._held else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._held is not None:
            self._held.let_go()


@contextmanager
def own_server(
    *, timeout_s: float, home: Path, waiting: TellWaiting = say_nothing, with_ui: bool = False
) -> Iterator[str]:
    """Start a server, yield its API URL and stop it; with `with_ui`, it serves its UI as well.

    `waiting` is called repeatedly with the seconds that have passed. Raises ServerStartError after `timeout_s`.
    """
    with CommandServer(ServerPlan(home, timeout_s, with_ui=with_ui)) as server:
        yield server.answering(waiting)
