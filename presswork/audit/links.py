"""Write the address of every view, so that each figure can be a link to the rows behind it.

Templates have this module as `link`: `link.generations(flow=flow, status="invalid")`. A value that is None or '' is
left out. Only a record's key in its life may be empty. Names from data are escaped here.
"""

from datetime import UTC, datetime
from urllib.parse import quote, urlencode


def address(path: str, **asked: object) -> str:
    """Return a path with a query of the values that are given."""
    given = {name: _written(value) for name, value in asked.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path


def part(name: str) -> str:
    """Escape a name from data as one part of a path."""
    return quote(name, safe="", errors="surrogateescape")


def overview(**asked: object) -> str:
    """The overview, for a period, a flow or an endpoint."""
    return address("/", **asked)


def runs(**asked: object) -> str:
    """The list of runs."""
    return address("/runs", **asked)


def run(run_id: str) -> str:
    """One run."""
    return f"/runs/{part(run_id)}"


def generations(**asked: object) -> str:
    """The list of generations."""
    return address("/generations", **asked)


def generation(generation_id: str) -> str:
    """One generation."""
    return f"/generations/{part(generation_id)}"


def records(*, key: str, **asked: object) -> str:
    """A record's life."""
    found = address("/records", **asked, key=key)
    return found if key else f"{found}{'&' if '?' in found else '?'}key="


def difference(a: str, b: str, of: str = "answer", **asked: object) -> str:
    """The difference between two generations, or two versions of a template."""
    return address("/difference", of=of, a=a, b=b, **asked)


def templates(**asked: object) -> str:
    """The list of templates."""
    return address("/templates", **asked)


def template(name: str, **asked: object) -> str:
    """A template's versions."""
    return address(f"/templates/{part(name)}", **asked)


def compare(name: str, a: str, b: str, **asked: object) -> str:
    """The same records under two versions of a template."""
    return address(f"/templates/{part(name)}/compare", a=a, b=b, **asked)


def _written(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat()
    return str(value)
