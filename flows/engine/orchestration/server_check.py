"""Check whether what listens at an address is a Prefect server that this Presswork can work with."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from importlib.metadata import version

import orjson

from flows.errors import ConfigurationError

ANSWERS_WITHIN_S = 10.0
NO_ANSWER = (OSError, ValueError, http.client.HTTPException)
"""What asking raises where nothing, or no HTTP, is at the other end."""


class PrefectServerError(ConfigurationError):
    """Prefect's server can't be used."""


def require_answer(api: str, auth_string: str | None = None, *, other_credentials: bool = False) -> None:
    """Raise PrefectServerError unless a server answers that takes these credentials and is no older than our Prefect.

    A server with `other_credentials` than Prefect's own basic authentication (Prefect Cloud) checks them itself.
    """
    try:
        _read(f"{api.rstrip('/')}/health", None)
        if not other_credentials:
            _require_version(api, server_version(api, auth_string))
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise PrefectServerError(
                f"Prefect's server at {api} {'refuses the' if auth_string else 'asks for a'} user and password: set "
                "PREFECT_API_AUTH_STRING to what the server has in PREFECT_SERVER_API_AUTH_STRING."
            ) from None
        if error.code >= 500:
            raise _silent(api, f"it answers HTTP {error.code}") from None
        if not other_credentials:
            raise _no_prefect(api) from None
    except NO_ANSWER as error:
        raise _silent(api, str(getattr(error, "reason", error))) from None


def is_healthy(api: str) -> bool:
    """Whether a Prefect server answers at this API's URL."""
    try:
        return _read(f"{api}/health", None, within_s=2).strip() == b"true"
    except NO_ANSWER:
        return False


def server_version(api: str, auth_string: str | None = None) -> str | None:
    """Read which version of Prefect serves this API; None where it is no Prefect server. Raises NO_ANSWER."""
    body = _read(f"{api.rstrip('/')}/admin/version", auth_string)
    try:
        found = orjson.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, str) and _parts(found) else None


def _read(url: str, auth_string: str | None, within_s: float = ANSWERS_WITHIN_S) -> bytes:
    request = urllib.request.Request(url)  # noqa: S310 - an address that the user gave
    if auth_string:
        request.add_header("Authorization", f"Basic {base64.b64encode(auth_string.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=within_s) as answer:  # noqa: S310 - as above
        return bytes(answer.read())


def _require_version(api: str, served: str | None) -> None:
    ours = version("prefect")
    if served is None:
        raise _no_prefect(api)
    major, minor = _parts(served)
    our_major, our_minor = _parts(ours)
    if major != our_major or minor < our_minor:
        raise PrefectServerError(
            f"Prefect's server at {api} is version {served}, and this Presswork works with {our_major}.{our_minor} and "
            f"later versions of {our_major}: run the server with `prefect=={ours}` or a newer one. (One that "
            "`presswork up` started: `presswork down`, then `presswork up`.)"
        )


def _parts(number: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", number)
    return tuple(map(int, found.groups())) if found else ()


def _no_prefect(api: str) -> PrefectServerError:
    return PrefectServerError(f"What answers at {api} is no Prefect server; correct PREFECT_API_URL (it ends in /api).")


def _silent(api: str, reason: str) -> PrefectServerError:
    return PrefectServerError(
        f"Prefect's server at {api} does not answer: {reason}. Start it (`presswork up` on this machine), correct "
        "PREFECT_API_URL, or unset it: then Presswork uses a server of its own."
    )
