"""Say in our own errors what the SDK raises and what an error answer means: it may pass, is the record's, or stops all.

By status, type and code first; the endpoint's words are a hint only, for an empty account comes as an ordinary 400.
What no rule here knows and meets record after record, presswork/pacing/breaker.py stops.
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
from presswork.errors import CallError, FinalCallError, PassingCallError, StoppingCallError

SPEND_LIMIT = "spend_limit_reached"
LONGEST_MESSAGE = 300
"""Characters of an endpoint's error message that are passed on: see said()."""

STOPPING_STATUSES = {
    401: "The endpoint refuses the key: check ANTHROPIC_API_KEY.",
    402: "The account lacks credit: see its billing page.",
    403: "The key may not do this: check its workspace and permissions.",
    404: "The endpoint does not know the model, or the path: check `model` in the template and ANTHROPIC_BASE_URL.",
}
"""Statuses after which no request of the run can succeed, and what to do."""

PASSING_STATUSES = frozenset({408, 409, 429})  # and all from 500 on

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
"""Which status the API gives an error of a type; source: its page on errors."""

PROXY_STATUSES = frozenset({502, 504, 520, 524})
"""Statuses of something that stands before the endpoint, which may have answered all the same, and billed it."""

TIMED_OUT = "timeout_error"
"""The API's own 504, after which nothing was generated."""

OF_THE_KEY = frozenset({"authentication_error", "billing_error"})
"""Types that say the same with any status: a gateway may send them with another."""

NOT_ITS_OWN = (
    "A firewall or a proxy answered before the endpoint did; if all records meet it, check ANTHROPIC_BASE_URL."
)
LIMIT_REMEDY = "Raise the limit in the account's settings, or wait until it starts over, then run again."
BUDGET_REMEDY = "The gateway's budget for this key is spent: raise it there, or wait until it starts over."
SPENT = {"budget_exceeded": BUDGET_REMEDY, "insufficient_quota": STOPPING_STATUSES[402]}
"""Types and codes of a gateway whose budget or credit is spent, and what to do."""

_SPENT_WORDS = (
    (r"^your credit balance is too low|credit balance is too low to access", STOPPING_STATUSES[402]),
    (r"reached your specified (\w+ )?api usage limits", LIMIT_REMEDY),
    (r"^(this|your) organization has been disabled", "Ask the provider's support why, then run again."),
    (r"^budget has been exceeded|budget has been exceeded! current cost|exceeded(token)?budget: ", BUDGET_REMEDY),
)
"""How the same is said with an ordinary 400 or 429. Long phrases: an error may quote a record that speaks of money."""

_TOO_LONG = re.compile(
    r"prompt is too long|(input|request) is too (long|large)|exceed context limit|context (length|window)"
)
_KEY = re.compile(r"\bsk-[\w*.-]+")
_NUMBERED = re.compile(r"[\w-]*\d[\w-]*")


_UNCONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx2.PoolTimeout)


def translate(error: anthropic.AnthropicError) -> CallError:
    """Say an SDK error in ours: may it pass, will it not, or can no request of the run succeed."""
    if isinstance(error, anthropic.APIConnectionError):
        return _without_answer(error)
    if not isinstance(error, anthropic.APIStatusError):
        return PassingCallError(f"the answer can't be read ({type(error).__name__})", kind=CONNECTION)
    return error_of(error.status_code, read_error(error.body), error.response.headers, error.request.headers)


def error_of(status: int, told: ErrorBody, headers: Mapping[str, str], sent: Mapping[str, str]) -> CallError:
    """Make the error of an error answer, for the status and headers of the response and the headers of its request."""
    error, kind, remedy = judge(status, told)
    name = "of a proxy" if kind == PROXY else told.type or ""
    message = f"HTTP {status} {name}".strip()
    if error is not PassingCallError:
        message += said(told.message, sent)
    return error(
        f"{message}. {remedy}" if remedy else message,
        kind=kind,
        http_status=status,
        request_id=cleaned_word(headers.get("request-id")),
        retry_after_s=retry_after(headers),
        limits=read_limits(headers),
        alike=likeness(status, told),
    )


def refused_key(error: anthropic.APIStatusError) -> StoppingCallError:
    """Say that the endpoint refuses when it is asked what it is, in whatever form."""
    refused = translate(error)
    if isinstance(refused, StoppingCallError):
        return refused
    remedy = STOPPING_STATUSES[error.status_code]
    return StoppingCallError(f"{refused}. {remedy}", kind=refused.kind, http_status=error.status_code)


def _without_answer(error: anthropic.APIConnectionError) -> CallError:
    if _is_caused_by(error, _UNCONNECTED):
        return PassingCallError("no connection could be made", kind=CONNECT)
    if isinstance(error, anthropic.APITimeoutError):
        return PassingCallError("the request timed out", kind=TIMEOUT)
    if _is_caused_by(error, (httpx2.TooManyRedirects,)):
        message = "the endpoint redirects without end: check ANTHROPIC_BASE_URL"
        return FinalCallError(message, kind="redirect", alike="redirect")
    if _is_caused_by(error, (httpx2.DecodingError,)):
        return PassingCallError("the answer can't be read: its compression is broken", kind=CONNECTION)
    return PassingCallError("the connection was lost before an answer came", kind=CONNECTION)


def _is_caused_by(error: anthropic.APIConnectionError, kinds: tuple[type[Exception], ...]) -> bool:
    # Only where no connection was made is it certain that nothing was generated. aiohttp's own errors tell that: the
    # SDK's transport says ConnectError also where the server hung up after it had read the request.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kinds):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def judge(status: int, told: ErrorBody) -> tuple[type[CallError], str, str]:
    """Decide what an error answer means: the class of error, its kind, and what to do, empty without a remedy."""
    kind = told.type or f"http_{status}"
    # An error inside a stream, or a gateway's, comes with status 200 and tells itself by its type alone.
    meant = status if status >= 400 and kind not in OF_THE_KEY else STATUS_OF.get(kind, status)
    if told.code is not None and told.code.endswith(SPEND_LIMIT):
        return StoppingCallError, told.code, LIMIT_REMEDY
    # A firewall's page for one record, or a proxy's in the middle of a good run, has another form than the API's.
    is_of_the_api = told.wrapped or told.type in STATUS_OF
    if meant in STOPPING_STATUSES and (is_of_the_api or meant not in {403, 404}):
        return StoppingCallError, kind, STOPPING_STATUSES[meant]
    if meant < 500 and (remedy := _why_spent(told)):
        return StoppingCallError, kind, remedy
    if meant in PROXY_STATUSES and told.type != TIMED_OUT:
        return PassingCallError, PROXY, ""
    if meant in PASSING_STATUSES or meant >= 500:
        return PassingCallError, kind, ""
    return FinalCallError, kind, NOT_ITS_OWN if meant in STOPPING_STATUSES else ""


def _why_spent(told: ErrorBody) -> str | None:
    words = told.message.lower()
    by_word = [SPENT[word] for word in (told.type, told.code) if word in SPENT]
    return next(iter(by_word + [remedy for pattern, remedy in _SPENT_WORDS if re.search(pattern, words)]), None)


def likeness(status: int, told: ErrorBody) -> str | None:
    """Return what is equal for refusals that are alike: in status, type, and message without its numbers.

    None where a refusal is the record's own whatever others meet: its prompt is too long.
    """
    if status == 413 or _TOO_LONG.search(told.message.lower()):
        return None
    # Hashed: the message may quote a record, and is passed on by said() alone.
    words = f"{status} {told.type} {_NUMBERED.sub('#', told.message)}"
    return hashlib.sha256(words.encode()).hexdigest()


def said(message: str, sent: Mapping[str, str]) -> str:
    """Return the endpoint's own words, for they tell what is wrong with a request, or nothing where they are long.

    A message of more than a few lines is one that quotes the request, and a record's text belongs in no error. A
    gateway may quote the key.
    """
    if not message.strip() or len(message) > LONGEST_MESSAGE:
        return ""
    for name in ("authorization", "x-api-key"):
        key = sent.get(name, "").removeprefix("Bearer ")
        message = message.replace(key, "[key]") if key else message
    return f": {_KEY.sub('[key]', message).strip().rstrip('.!')}"
