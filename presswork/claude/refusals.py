"""Translate the SDK's errors and error answers into ours: temporary, the record's own, or one that stops the run.

The status, type and code decide first. The endpoint's words are only a hint, because an empty account comes as an
ordinary 400. If an error that no rule here knows hits record after record, presswork/pacing/breaker.py stops the run.
"""

import hashlib
import re
from collections.abc import Mapping

import aiohttp
import anthropic
import httpx2

from db.words import CONNECT, CONNECTION, PROXY, TIMEOUT
from presswork.claude.answers import ErrorBody, cleaned_word, read_error
from presswork.claude.rate_limits import read_limits, retry_after
from presswork.errors import CallError, FinalCallError, PassingCallError, StoppingCallError, may_pass

SPEND_LIMIT = "spend_limit_reached"
LONGEST_MESSAGE = 300
"""An endpoint's error message with more characters is not passed on: see short_message()."""

STOPPING_STATUSES = {
    401: "The endpoint rejects the key. Check ANTHROPIC_API_KEY.",
    402: "The account has no credit left. See its billing page.",
    403: "The key is not allowed to do this. Check its workspace and permissions.",
    404: "The endpoint does not know the model or the path. Check `model` in the template and ANTHROPIC_BASE_URL.",
}
"""Statuses after which no request of the run can succeed, with the remedy."""

STATUS_OF = {
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The API's status for each error type; source: its page on errors."""

PROXY_STATUSES = frozenset({502, 504, 520, 524})
"""Statuses of a proxy in front of the endpoint. The endpoint may still have answered, and billed the answer."""

TIMED_OUT = "timeout_error"
"""The API's own 504, after which nothing was generated."""

KEY_ERRORS = frozenset({"authentication_error", "billing_error"})
"""Types that mean the same with any status, because a gateway may send another one."""

PROXY_REMEDY = (
    "A firewall or a proxy answered instead of the endpoint. If all records get this error, check ANTHROPIC_BASE_URL."
)
LIMIT_REMEDY = "Raise the limit in the account's settings or wait until it resets, then run again."
BUDGET_REMEDY = "The gateway's budget for this key is spent. Raise it there, or wait until it resets."
SPENT = {"budget_exceeded": BUDGET_REMEDY, "insufficient_quota": STOPPING_STATUSES[402]}
"""A gateway's types and codes for a spent budget or credit, with the remedy."""

_SPENT_WORDS = (
    (r"^your credit balance is too low|credit balance is too low to access", STOPPING_STATUSES[402]),
    (r"reached your specified (\w+ )?api usage limits", LIMIT_REMEDY),
    (r"^(this|your) organization has been disabled", "Contact the provider's support, then run again."),
    (r"^budget has been exceeded|budget has been exceeded! current cost|exceeded(token)?budget: ", BUDGET_REMEDY),
)
"""Phrases with the same meaning in an ordinary 400 or 429. They are long, because an error may quote a record."""

_TOO_LONG = re.compile(
    r"prompt is too long|(input|request) is too (long|large)|exceed context limit|context (length|window)"
)
_KEY = re.compile(r"\bsk-[\w*.-]+")
_NUMBERED = re.compile(r"[\w-]*\d[\w-]*")


_UNCONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx2.PoolTimeout)


def translate(error: anthropic.AnthropicError) -> CallError:
    """Translate an SDK error into ours: temporary, final, or one that stops the run."""
    if isinstance(error, anthropic.APIConnectionError):
        return _without_answer(error)
    if not isinstance(error, anthropic.APIStatusError):
        return PassingCallError(f"the answer can't be read ({type(error).__name__})", kind=CONNECTION)
    return error_of(error.status_code, read_error(error.body), error.response.headers, error.request.headers)


def error_of(status: int, body: ErrorBody, headers: Mapping[str, str], request_headers: Mapping[str, str]) -> CallError:
    """Make our error from an error answer: its status, body and headers, and the headers of its request."""
    error, kind, remedy = judge(status, body)
    name = "from a proxy" if kind == PROXY else body.type or ""
    message = f"HTTP {status} {name}".strip()
    if error is not PassingCallError:
        message += short_message(body.message, request_headers)
    return error(
        f"{message}. {remedy}" if remedy else message,
        kind=kind,
        http_status=status,
        request_id=cleaned_word(headers.get("request-id")),
        retry_after_s=retry_after(headers),
        limits=read_limits(headers),
        alike=likeness(status, body),
    )


def refused_key(refused: CallError, status: int) -> StoppingCallError:
    """Make the error for a key that the endpoint rejects when it is identified, from the error of that status."""
    if isinstance(refused, StoppingCallError):
        return refused
    return StoppingCallError(f"{refused}. {STOPPING_STATUSES[status]}", kind=refused.kind, http_status=status)


def _without_answer(error: anthropic.APIConnectionError) -> CallError:
    if _is_caused_by(error, _UNCONNECTED):
        return PassingCallError("no connection could be made", kind=CONNECT)
    if isinstance(error, anthropic.APITimeoutError):
        return PassingCallError("the request timed out", kind=TIMEOUT)
    if _is_caused_by(error, (httpx2.TooManyRedirects,)):
        message = "the endpoint redirects in a loop. Check ANTHROPIC_BASE_URL"
        return FinalCallError(message, kind="redirect", alike="redirect")
    if _is_caused_by(error, (httpx2.DecodingError,)):
        return PassingCallError("the answer can't be read: its compression is corrupt", kind=CONNECTION)
    return PassingCallError("the connection was lost before an answer came", kind=CONNECTION)


def _is_caused_by(error: anthropic.APIConnectionError, kinds: tuple[type[Exception], ...]) -> bool:
    # Only without a connection is it certain that nothing was generated, and only aiohttp's own errors show that: the
    # SDK's transport also raises ConnectError if the server hung up after it had read the request.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kinds):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def judge(status: int, body: ErrorBody) -> tuple[type[CallError], str, str]:
    """Return the class of our error for an error answer, its kind, and its remedy (empty if there is none)."""
    kind = body.type or f"http_{status}"
    # An error inside a stream or from a gateway may have status 200: then only its type identifies it.
    meant = status if status >= 400 and kind not in KEY_ERRORS else STATUS_OF.get(kind, status)
    if body.code is not None and body.code.endswith(SPEND_LIMIT):
        return StoppingCallError, body.code, LIMIT_REMEDY
    # A firewall's page for one record, or a proxy's during a good run, is not in the API's format.
    is_of_the_api = body.wrapped or body.type in STATUS_OF
    if meant in STOPPING_STATUSES and (is_of_the_api or meant not in {403, 404}):
        return StoppingCallError, kind, STOPPING_STATUSES[meant]
    if meant < 500 and (remedy := _why_spent(body)):
        return StoppingCallError, kind, remedy
    if meant in PROXY_STATUSES and body.type != TIMED_OUT:
        return PassingCallError, PROXY, ""
    if may_pass(meant):
        return PassingCallError, kind, ""
    return FinalCallError, kind, PROXY_REMEDY if meant in STOPPING_STATUSES else ""


def _why_spent(body: ErrorBody) -> str | None:
    words = body.message.lower()
    by_word = [SPENT[word] for word in (body.type, body.code) if word in SPENT]
    return next(iter(by_word + [remedy for pattern, remedy in _SPENT_WORDS if re.search(pattern, words)]), None)


def likeness(status: int, body: ErrorBody) -> str | None:
    """Return a hash that is equal for rejections with equal status, type, and message without its numbers.

    None if the rejection always concerns one record: its prompt is too long.
    """
    if status == 413 or _TOO_LONG.search(body.message.lower()):
        return None
    # Hashed, because the message may quote a record, and only short_message() may pass it on.
    words = f"{status} {body.type} {_NUMBERED.sub('#', body.message)}"
    return hashlib.sha256(words.encode()).hexdigest()


def short_message(message: str, request_headers: Mapping[str, str]) -> str:
    """Return the endpoint's words, which explain what is wrong with a request, or nothing if they are long.

    A message of more than a few lines quotes the request, and an error must not contain a record's text. A gateway may
    quote the key, which is removed.
    """
    if not message.strip() or len(message) > LONGEST_MESSAGE:
        return ""
    for name in ("authorization", "x-api-key"):
        key = request_headers.get(name, "").removeprefix("Bearer ")
        message = message.replace(key, "[key]") if key else message
    return f": {_KEY.sub('[key]', message).strip().rstrip('.!')}"
