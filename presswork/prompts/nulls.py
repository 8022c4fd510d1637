"""Let a database's NULL render as nothing, while templates can still test for it.

Python's None renders as the word "None", and Jinja has no single place to change this: `finalize` sees the output of a
tag, but not what `~`, `join` or `format` put together. So data reaches a template with NULL, a value with a single
instance, in place of each None.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from functools import partial, wraps
from inspect import signature
from itertools import repeat
from operator import is_, is_not
from typing import Any, NoReturn

import jinja2
from jinja2 import filters
from jinja2.nodes import EvalContext
from jinja2.tests import TESTS

from presswork.prompts.spelling import Number, as_rendered, spelled_json

# Jinja passes these to a filter before its value.
_HANDED = frozenset({"context", "eval_ctx", "environment"})
# For all other filters NULL is an empty text, which works as an empty list too.
_STAYS_NULL = frozenset({"abs", "filesizeformat", "round"})
_TAKES_MAPPING = frozenset({"dictsort", "items", "xmlattr"})
_SCALARS = frozenset({str, int, bool})
_CONVERSION = re.compile(r"%(?:\((?P<name>[^)]*)\))?[-#0 +]*(?P<width>\*|\d*)(?:\.(?P<digits>\*|\d*))?[hlL]?[a-zA-Z%]")


class Null:
    """The value NULL: it reads as an empty text, list or mapping, is false, and equals only None and itself.

    Text and lists can be added to it. Other arithmetic, and `<`, raise jinja2.TemplateRuntimeError: a sum or a
    condition that silently reads NULL as 0 would be wrong.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return ""

    def __repr__(self) -> str:
        # For a printed list, in which texts have quotes.
        return "''"

    def __format__(self, spec: str) -> str:
        width = re.search(r"^(?:.?[<>=^])?[-+ ]?#?(\d*)", spec)
        return " " * int(width[1] or 0) if width else ""

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __getitem__(self, part: object) -> "Null":
        if isinstance(part, slice):
            return self
        raise LookupError(part)

    def __eq__(self, other: object) -> bool:
        return other is None or other is self

    def __hash__(self) -> int:
        return hash(None)

    def __add__(self, other: Any) -> Any:
        return other if isinstance(other, (str, list, Null)) else self._refuse()

    __radd__ = __add__

    def _refuse(self, *_other: object) -> NoReturn:
        raise jinja2.TemplateRuntimeError("it computes with a value that is NULL, or compares it. Test `is none` first")

    __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _refuse
    __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __pos__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


NULL = Null()
"""The single instance; compare with `is`."""
NULL_NAME = f"{__name__}.NULL"
"""How a compiled template imports it."""


def with_nulls(value: Any) -> Any:
    """Return data for templates: NULL for each None and a Number for each float, at any depth.

    Data without either of them is returned itself.
    """
    if type(value) in _SCALARS:
        return value
    if value is None:
        return NULL
    if type(value) is float:
        return Number(value)
    if isinstance(value, (list, tuple)):
        items = [with_nulls(item) for item in value]
        return items if any(map(is_not, items, value)) else value
    if isinstance(value, (dict, Mapping)):  # dict first: the check for the abstract class takes ten times as long
        if _SCALARS.issuperset(map(type, value.values())):
            return value
        values = [with_nulls(item) for item in value.values()]
        return dict(zip(value, values, strict=True)) if any(map(is_not, values, value.values())) else value
    return value


def paths_of_nulls(value: Any, path: str) -> Iterator[str]:
    """Yield the paths at which data holds None: `record.note`, `record.sizes[2]`, `record['unit price']`."""
    match value:
        case None:
            yield path
        case Mapping():
            for name, item in value.items():
                yield from paths_of_nulls(item, f"{path}.{name}" if name.isidentifier() else f"{path}[{name!r}]")
        case list() | tuple():
            for number, item in enumerate(value):
                yield from paths_of_nulls(item, f"{path}[{number}]")


def fill_percent(pattern: str, values: Any) -> str:
    """Return `pattern % values`; NULL fills any conversion with nothing, even `%.2f`."""
    return str(_takes_nulls(pattern, values) % values)


def call_arguments(method: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments for a method of Python's own types, with None for NULL, so that NULL means a default."""
    if method.__name__ == "join":
        return tuple(["" if item is NULL else item for item in argument] for argument in arguments)
    return tuple(_as_none(argument) for argument in arguments)


def _as_none(value: Any) -> Any:
    return None if value is NULL else value


def _holds_null(values: Iterable[Any]) -> bool:
    # Not `in`: it compares, and comparing a missing value is an error.
    return any(map(is_, values, repeat(NULL)))


def _takes_nulls(pattern: str, values: Any) -> str:
    by_place = values if isinstance(values, tuple) else (values,)
    if not _holds_null(values.values() if isinstance(values, Mapping) else by_place):
        return pattern
    given = iter(by_place)

    def spelled(match: re.Match[str]) -> str:
        if match[0].endswith("%"):
            return match[0]
        if match["name"] is not None:
            value = values.get(match["name"]) if isinstance(values, Mapping) else None
        else:
            for _star in [part for part in (match["width"], match["digits"]) if part == "*"]:
                next(given, None)
            value = next(given, None)
        return match[0][:-1] + "s" if value is NULL else match[0]

    return _CONVERSION.sub(spelled, pattern)


# Filters


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if value is NULL else filters.do_default(value, default_value, boolean)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if value is NULL:
        return ""
    return filters.do_format(_takes_nulls(str(value), kwargs or args), *args, **kwargs)


def _tojson(value: Any, indent: int | None = None) -> str:
    # Jinja's own version also escapes HTML and characters that are not ASCII. Both sort keys.
    return spelled_json(
        json.dumps(value, ensure_ascii=False, sort_keys=True, indent=_as_none(indent), default=_as_json)
    )


def _as_json(value: Any) -> str | None:
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises the error that names the missing value
    if value is NULL:
        return None
    if isinstance(value, date):
        return str(value)  # a parameter, in the form in which it prints; records have text
    raise TypeError(f"{type(value).__name__} is not JSON")


def _nulls_first(case_sensitive: bool, value: Any) -> tuple[bool, Any]:
    return value is not NULL, value if case_sensitive else filters.ignore_case(value)


@jinja2.pass_environment
def _sort(
    environment: jinja2.Environment,
    value: Any,
    reverse: bool = False,
    case_sensitive: bool = False,
    attribute: str | int | None = None,
) -> list[Any]:
    key = filters.make_multi_attrgetter(environment, attribute, postprocess=partial(_nulls_first, case_sensitive))
    return sorted(value, key=key, reverse=reverse)


def _dictsort(
    value: Mapping[str, Any], case_sensitive: bool = False, by: str = "key", reverse: bool = False
) -> list[tuple[str, Any]]:
    if by not in {"key", "value"}:
        raise jinja2.TemplateRuntimeError('dictsort takes by="key" or by="value"')
    return sorted(value.items(), key=lambda item: _nulls_first(case_sensitive, item[by == "value"]), reverse=reverse)


@jinja2.pass_environment
def _groupby(
    environment: jinja2.Environment, value: Any, attribute: str | int, default: Any = None, case_sensitive: bool = False
) -> list[Any]:
    items, key = list(value), filters.make_attrgetter(environment, attribute, default=default)
    nulls = [item for item in items if key(item) is NULL]
    others = [item for item in items if key(item) is not NULL]
    # A group of one value needs no comparison.
    of_one = filters.sync_do_groupby(environment, nulls[:1], attribute, default)
    first = [group._replace(list=nulls) for group in of_one]
    return [*first, *filters.sync_do_groupby(environment, others, attribute, default, case_sensitive)]


def _null_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a filter accept NULL: as its value, as an optional argument, and as its result."""
    parameters = [parameter for label, parameter in signature(function).parameters.items() if label not in _HANDED]
    # By name, and by position after the value.
    optional: set[str | int] = {parameter.name for parameter in parameters if parameter.default is None}
    optional |= {place for place, parameter in enumerate(parameters[1:]) if parameter.default is None}
    at = 1 if hasattr(function, "jinja_pass_arg") else 0
    empty: Any = {} if name in _TAKES_MAPPING else ""

    @wraps(function)
    def taking_nulls(*args: Any, **kwargs: Any) -> Any:
        if not _holds_null(args) and not _holds_null(kwargs.values()):
            return _as_data(function(*args, **kwargs))
        handed, value, given = args[:at], args[at], args[at + 1 :]
        if value is NULL:
            if name in _STAYS_NULL:
                return NULL
            value = empty
        by_place = [None if one is NULL and place in optional else one for place, one in enumerate(given)]
        by_name = {label: None if one is NULL and label in optional else one for label, one in kwargs.items()}
        return _as_data(function(*handed, value, *by_place, **by_name))

    return taking_nulls


def _as_data(result: Any) -> Any:
    # A number that a filter computes is spelled like one in a record.
    return NULL if result is None else as_rendered(result)


@jinja2.pass_eval_context
def _xmlattr(eval_ctx: EvalContext, value: Mapping[str, Any], autospace: bool = True) -> str:
    return filters.do_xmlattr(eval_ctx, {name: _as_none(item) for name, item in value.items()}, autospace)


def _null_test(function: Callable[..., bool]) -> Callable[..., bool]:
    @wraps(function)
    def taking_nulls(*args: Any, **kwargs: Any) -> bool:
        return function(*map(_as_none, args), **{label: _as_none(one) for label, one in kwargs.items()})

    return taking_nulls


_WRAPPED: dict[str, Any] = filters.FILTERS | {
    "sort": _sort,
    "dictsort": _dictsort,
    "groupby": _groupby,
    "xmlattr": _xmlattr,
}
# These handle NULL themselves, as it is not an empty text for them.
_APART: dict[str, Any] = {"default": _default, "d": _default, "format": _format, "tojson": _tojson}
NULL_FILTERS = {name: _null_filter(name, function) for name, function in _WRAPPED.items()} | _APART
"""Jinja's filters, by name, in versions that accept NULL."""
_TESTS: dict[str, Any] = dict(TESTS)
NULL_TESTS = {name: _null_test(function) for name, function in _TESTS.items()}
"""Jinja's tests, in versions that read NULL as None."""
