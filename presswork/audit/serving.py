"""Serve the audit room until it is stopped, with as little right to the CPU as the system knows."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from presswork.audit.app import OWN_HOSTS, create_app
from presswork.audit.guards import Password
from presswork.errors import ConfigurationError

NICENESS = 10
"""The page never takes CPU from a run on the same machine."""
STOP_WITHIN_S = 3
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - these are compared with, not bound to


@dataclass(frozen=True)
class Listening:
    """Where the audit room is served: a host and a port, or a Unix socket at `uds`.

    `public_url` is the address by which a proxy in front of it is reached.
    """

    host: str = "127.0.0.1"
    port: int = 4201
    uds: Path | None = None
    public_url: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.uds is not None or self.host in OWN_HOSTS or self.host.startswith("127.")

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
        host = "127.0.0.1" if self.host in _EVERYWHERE else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def hosts(self) -> list[str]:
        """Return the names by which a browser may reach it; `*` if it listens everywhere, behind its password."""
        public = urlsplit(self.public_url or "").hostname
        if self.host in _EVERYWHERE and not public:
            return ["*"]
        return [*OWN_HOSTS, self.host, *([public] if public else [])]


def check_listening(listening: Listening, password: Password | None) -> None:
    """Raise ConfigurationError if other machines could read the ledger without a password."""
    if not listening.is_local and password is None:
        raise ConfigurationError(
            f"{listening.host} can be reached from other machines, so the audit room needs a password. Set "
            "PRESSWORK_AUDIT_USER and PRESSWORK_AUDIT_PASSWORD, or serve it on 127.0.0.1."
        )


def serve(
    listening: Listening,
    read_url: Callable[[], str],
    *,
    password: Password | None = None,
    prefect_url: str | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve the ledger's pages until SIGINT or SIGTERM; `started` is called when they can be opened.

    Raises ConfigurationError for an address that others can reach without a password, and OSError if it is taken.
    """
    check_listening(listening, password)
    app = create_app(read_url, hosts=listening.hosts(), password=password, prefect_url=prefect_url)
    with suppress(OSError):
        os.nice(NICENESS)
    config = uvicorn.Config(
        app,
        host=listening.host,
        port=listening.port,
        uds=None if listening.uds is None else str(listening.uds),
        access_log=False,  # query strings hold customers' texts
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    _Server(config, started).run()


class _Server(uvicorn.Server):
    """Says when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: object = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started and self._say_started is not None:
            self._say_started()
