"""The operations that turn one text into another, and which equal parts a reader may skip."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

OperationKind = Literal["equal", "insert", "delete", "replace"]
CONTEXT = 200
"""Characters of equal text that stay on each side of a change; the rest is folded."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A piece of both texts: all `old` pieces joined are the old text, all `new` ones the new text."""

    kind: OperationKind
    old: str
    new: str

    @property
    def is_equal(self) -> bool:
        """Whether this piece did not change."""
        return self.kind == "equal"


@dataclass(frozen=True, slots=True)
class FoldedText:
    """Equal text, far from any change, that a reader may skip."""

    text: str


def made_of(pairs: Iterable[tuple[str, str]]) -> list[Operation]:
    """Make operations of pairs of old and new pieces; adjacent equal pairs are joined, and so are changed ones."""
    groups: list[tuple[list[str], list[str], bool]] = []
    for old, new in pairs:
        if not (old or new):
            continue
        if not groups or groups[-1][2] != (old == new):
            groups.append(([], [], old == new))
        groups[-1][0].append(old)
        groups[-1][1].append(new)
    joined = (("".join(old), "".join(new)) for old, new, _is_equal in groups)
    return [Operation(_kind(old, new), old, new) for old, new in joined]


def folded(operations: Sequence[Operation], context: int = CONTEXT) -> Iterator[Operation | FoldedText]:
    """Yield the operations, with the middle of each long equal text folded."""
    last = len(operations) - 1
    for place, operation in enumerate(operations):
        text = operation.old
        if not operation.is_equal or len(text) <= 3 * context:
            yield operation
            continue
        begin = 0 if place == 0 else _after_blank(text, context)
        end = len(text) if place == last else len(text) - _after_blank(text[::-1], context)
        parts = (_equal(text[:begin]), FoldedText(text[begin:end]), _equal(text[end:]))
        yield from (part for part in parts if part != _equal(""))


def _equal(text: str) -> Operation:
    return Operation("equal", text, text)


def _after_blank(text: str, place: int) -> int:
    """Return where to cut a text near `place`, so that no word is cut; there, if no blank is near."""
    blank = next((at for at in range(place, place + 40) if text[at].isspace()), place - 1)
    return blank + 1


def _kind(old: str, new: str) -> OperationKind:
    if old == new:
        return "equal"
    if not old:
        return "insert"
    return "replace" if new else "delete"
