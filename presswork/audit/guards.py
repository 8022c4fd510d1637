"""Guard every answer of the audit room: the headers that keep what it shows from a browser's other pages, a password.

Plain ASGI: Starlette's own base class would hold back the parts of a long answer.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""No script runs on any page, whatever a record contains."""
GUARDING_HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # A text that is deleted from the ledger must not live on in a browser.
    "cache-control": "no-store",
}
_REALM = 'Basic realm="Presswork audit room", charset="UTF-8"'


@dataclass(frozen=True)
class Password:
    """The name and the password that open the pages."""

    user: str
    secret: str

    def opens(self, authorization: str | None) -> bool:
        """Whether an Authorization header names both; a wrong name takes as long as a wrong password."""
        scheme, _, encoded = (authorization or "").partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
        except binascii.Error:
            given = b""
        user, _, secret = given.partition(b":")
        right_user = hmac.compare_digest(user, self.user.encode())
        right_secret = hmac.compare_digest(secret, self.secret.encode())
        return right_user and right_secret

    def __repr__(self) -> str:
        return f"Password(user={self.user!r})"


class HeaderGuard:
    """Puts the headers on every answer, also on errors; an answer may set its own Cache-Control."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in GUARDING_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_guarded if scope["type"] == "http" else send)


class PasswordGuard:
    """Asks for the password by HTTP Basic, on every path."""

    def __init__(self, app: ASGIApp, password: Password) -> None:
        self._app = app
        self._password = password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with 401."""
        if scope["type"] != "http" or self._password.opens(Headers(scope=scope).get("authorization")):
            await self._app(scope, receive, send)
            return
        refusal = PlainTextResponse("This page needs the password of the audit room.", 401)
        refusal.headers["www-authenticate"] = _REALM
        await refusal(scope, receive, send)
