"""Say why a deployment could not be made, in a sentence that holds no value of its settings.

Prefect's own error repeats the whole request, and with it the environment that a deployment gives its runs.
"""

from __future__ import annotations

from typing import Any

from httpx import HTTPStatusError, Response
from prefect.exceptions import PrefectException
from pydantic import ValidationError

from flows.errors import ConfigurationError

_KEY_IS_WRONG = 401


def concerns_all(error: Exception) -> bool:
    """Whether the server is not there, or refuses the key: no other deployment would fare better."""
    response = _response(error)
    if response is None:
        return not isinstance(error, PrefectException | ValueError | TypeError | ConfigurationError)
    return response.status_code == _KEY_IS_WRONG


def reason(error: Exception) -> str:
    """Say why a deployment could not be made."""
    if isinstance(error, ConfigurationError):
        return str(error)
    response = _response(error)
    if response is not None:
        return f"Prefect's server refuses it (HTTP {response.status_code}){_said(response)}."
    if isinstance(error, ValidationError):
        return f"Prefect refuses it: {_faults(list(error.errors(include_url=False, include_input=False)))}."
    return f"{type(error).__name__}: {str(error).rstrip('.')}."


def _response(error: Exception) -> Response | None:
    cause = getattr(error, "http_exc", None) or error
    return cause.response if isinstance(cause, HTTPStatusError) else None


def _said(response: Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    if isinstance(body.get("detail"), str):
        return f": {body['detail'].rstrip('.')}"
    faults = body.get("exception_detail")
    return f": {_faults(faults)}" if isinstance(faults, list) else ""


def _faults(faults: list[Any]) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault.get('loc', ())))}: {fault.get('msg')}" for fault in faults if isinstance(fault, dict)
    )
