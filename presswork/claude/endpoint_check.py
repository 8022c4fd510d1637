"""Check that the key is there and that the right endpoint answers. It needs no SDK, which takes a second to load."""

from db.words import SANDBOX, WRONG_ENDPOINT
from presswork.claude.answers import Answer
from presswork.errors import MissingKeyError, StoppingCallError


class WrongEndpointError(StoppingCallError):
    """Another endpoint answered than the configured one. Its `answer` may have been billed."""

    def __init__(self, message: str | None = None, answer: Answer | None = None) -> None:
        super().__init__(message, kind=WRONG_ENDPOINT)
        self.answer = answer


def check_endpoint(endpoint: str, *, is_sandbox: bool, answer: Answer | None = None) -> None:
    """Raise WrongEndpointError if the sandbox answers for another endpoint, or another endpoint for the sandbox."""
    if is_sandbox != (endpoint == SANDBOX):
        found = "the sandbox answered" if is_sandbox else "another endpoint answered"
        raise WrongEndpointError(
            f"The endpoint should be {endpoint!r}, but {found}. The ledger would store its answers under the wrong "
            "name. Check PRESSWORK_ENDPOINT and ANTHROPIC_BASE_URL.",
            answer,
        )


def require_key(key: str | None) -> str:
    """Return the key, or raise MissingKeyError now, because the SDK would fail only at the first request."""
    if not key:
        raise MissingKeyError
    return key
