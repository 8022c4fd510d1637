"""Compute a property when it is first read."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """functools.cached_property without its lock, which costs more than most of these properties."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        """Wrap a method."""
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, topic: object, owner: type) -> T:
        """Compute it, and leave the value where the next read finds it first."""
        value = topic.__dict__[self._compute.__name__] = self._compute(topic)
        return value
