"""Refuse requests in the API's error shapes."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 - an answer that is raised, not an error of the sandbox
    """A request gets an error as its answer. Carries everything in the error's response."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        error_code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Status is the HTTP status, kind the API's error type; error_code goes into `error.details`."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.error_code = error_code
        self.headers = dict(headers or {})

    def body(self, request_id: str | None) -> dict[str, object]:
        """The JSON body of the error."""
        error: dict[str, object] = {"type": self.kind, "message": self.message}
        if self.error_code is not None:
            error["details"] = {"error_code": self.error_code}
        return {"type": "error", "error": error, "request_id": request_id}


def bad_request(message: str) -> Refusal:
    """A 400 with the API's message."""
    return Refusal(400, "invalid_request_error", message)


def failure(error: Exception) -> Refusal:
    """A 500 for a bug in the sandbox, in the shape of the API's own failure."""
    return Refusal(500, "api_error", f"The sandbox failed: {type(error).__name__}: {error}")


def drawn_refusal(fault: str) -> Refusal | None:
    """The error of a drawn fault; None for a fault that is not an error."""
    match fault:
        case "rate_limited":
            message = "This request would exceed your organization's rate limit. Please try again later."
            return Refusal(429, "rate_limit_error", message, headers={"retry-after": "1", "x-should-retry": "true"})
        case "overloaded":
            return Refusal(529, "overloaded_error", "Overloaded", headers={"x-should-retry": "true"})
        case "server_error":
            return Refusal(500, "api_error", "Internal server error", headers={"x-should-retry": "true"})
        case "spend_limit":
            return Refusal(
                429,
                "rate_limit_error",
                "You have reached your specified API usage limits. You will regain access next month.",
                error_code="enforced_spend_limit_reached",
                headers={"x-should-retry": "false"},
            )
        case _:
            return None
