"""Serve the audit room until it is stopped, with as little right to the CPU as the system knows."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from presswork.addresses import is_loopback, url_of, why_not
from presswork.audit.app import OWN_HOSTS, create_app
from presswork.audit.guards import Password
from presswork.audit.pages.overview_page import AskNext
from presswork.errors import ConfigurationError

NICENESS = 10
"""The page never takes CPU from a run on the same machine."""
STOP_WITHIN_S = 3
LONGEST_REQUEST = 256 * 1024
"""Bytes of a request. Escaped, a record's key needs at most twelve bytes for each character."""
_WAITING = 100  # connections that are not accepted yet
_OWN_UMASK = 0o177
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - these are compared with, not bound to


@dataclass(frozen=True)
class Listening:
    """Where the audit room is served: a host and a port (0: any free one), or a Unix socket at `uds`.

    `public_url` is the address by which a proxy in front of it is reached.
    """

    host: str = "127.0.0.1"
    port: int = 4201
    uds: Path | None = None
    public_url: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.uds is not None or is_loopback(self.host)

    def hosts(self) -> list[str]:
        """Return the names by which a browser may reach it; `*` if it listens everywhere, behind its password."""
        public = urlsplit(self.public_url or "").hostname
        if self.uds is None and self.host in _EVERYWHERE and not public:
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
    ask_next: AskNext | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve the ledger's pages until SIGINT or SIGTERM; `started` gets their address when they can be opened.

    Raises ConfigurationError for an address that others can reach without a password, or that can't be used.
    """
    check_listening(listening, password)
    app = create_app(read_url, hosts=listening.hosts(), password=password, prefect_url=prefect_url, ask_next=ask_next)
    config = uvicorn.Config(
        app,
        access_log=False,  # query strings hold customers' texts
        log_level="warning",
        server_header=False,
        h11_max_incomplete_event_size=LONGEST_REQUEST,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    with _opened(listening) as (own, address):
        with suppress(OSError):
            os.nice(NICENESS)
        _Server(config, (lambda: None) if started is None else lambda: started(address)).run(sockets=[own])


class _Server(uvicorn.Server):
    """Says when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._say_started()


@contextmanager
def _opened(listening: Listening) -> Iterator[tuple[socket.socket, str]]:
    """Open the socket on which to listen; ConfigurationError if it can't be used."""
    if listening.uds is not None:
        with _unix_socket(listening.uds) as own:
            yield own, f"unix:{listening.uds}"
        return
    if error := why_not(listening.host, listening.port):
        raise ConfigurationError(
            f"The audit room can't listen on {listening.host}, port {listening.port}: {error.strerror or error}. Set "
            "another port with --port or PRESSWORK_AUDIT_PORT, or 0 for any free one."
        )
    family = socket.getaddrinfo(listening.host or None, listening.port, flags=socket.AI_PASSIVE)[0][0]
    with socket.create_server((listening.host, listening.port), family=family, backlog=_WAITING) as own:
        yield own, url_of(listening.host, own.getsockname()[1])


@contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """Open a socket that only its owner can use, and remove it at the end; what else has this path is left alone."""
    with socket.socket(socket.AF_UNIX) as own:
        try:
            _remove_unused(path)
            before = os.umask(_OWN_UMASK)
            try:
                own.bind(str(path))
            finally:
                os.umask(before)
            own.listen(_WAITING)
        except OSError as error:
            raise ConfigurationError(
                f"The audit room can't listen on the Unix socket {path}: {error.strerror or error}. Give another path."
            ) from None
        try:
            yield own
        finally:
            path.unlink(missing_ok=True)


def _remove_unused(path: Path) -> None:
    """Remove a socket to which nobody listens any more, as after `kill -9`."""
    with suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
