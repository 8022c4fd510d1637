"""Draw cheap, repeatable random numbers: the same key always draws the same numbers.

random.Random takes several microseconds to seed, and a request needs only a few draws. So this is a plain 64-bit
congruential generator (Knuth's MMIX constants) over a digest.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")
_MASK = (1 << 64) - 1


def digest(*parts: bytes) -> bytes:
    """A 16-byte digest of the parts. It depends on where each part ends."""
    lengths = b",".join(map(b"%d".__mod__, map(len, parts)))
    return blake2b(b"".join((lengths, b":", *parts)), digest_size=16).digest()


class Draw:
    """A random number generator with a digest as its seed."""

    __slots__ = ("_state",)

    def __init__(self, key: bytes) -> None:
        """Start from a key of any length; its first 8 bytes count."""
        self._state = int.from_bytes(key[:8], "little")

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1; 0 for n below 2."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 32) % n if n > 1 else 0

    def fraction(self) -> float:
        """A number of 0 or more, below 1."""
        return self.below(1 << 32) / (1 << 32)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + self.below(high - low + 1)
