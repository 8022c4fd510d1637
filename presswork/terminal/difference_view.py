"""Print what changed in a text, word by word: both texts in one, or one of its sides.

`diff` and `templates try` show changes alike. Without colours, signs mark what was removed and added.
"""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from presswork.differences.changed_text import new_text, old_text
from presswork.differences.operations import CONTEXT, FoldedText, Operation, folded
from presswork.escaping import visible

_OLD, _NEW = "red strike", "green underline"


def is_plain(console: Console) -> bool:
    """Whether a console shows no colours, so that signs have to mark changes."""
    return not console.is_terminal or console.no_color


def in_one(operations: Sequence[Operation], *, plain: bool, context: int | None = CONTEXT) -> Text:
    """Write both texts as one, with marks. Equal parts are folded, except `context` characters around each change.

    With a context of None, nothing is folded.
    """
    parts = operations if context is None else folded(operations, context)
    return _written(parts, plain=plain, old=True, new=True)


def old_side(operations: Sequence[Operation], *, plain: bool, context: int = CONTEXT) -> Text:
    """Write the old text, with marks on what the new one lacks."""
    return _written(folded(operations, context), plain=plain, old=True, new=False)


def new_side(operations: Sequence[Operation], *, plain: bool, context: int = CONTEXT) -> Text:
    """Write the new text, with marks on what the old one lacks."""
    return _written(folded(operations, context), plain=plain, old=False, new=True)


def _written(parts: Iterable[Operation | FoldedText], *, plain: bool, old: bool, new: bool) -> Text:
    made = Text()
    for part in parts:
        if isinstance(part, FoldedText):
            made.append(f" … {len(part.text):,} equal characters … ", "dim")
        elif part.is_equal:
            made.append(visible(part.old))
        else:
            if old and part.old:
                made.append(f"[-{old_text(part)}-]" if plain else old_text(part), _OLD)
            if new and part.new:
                made.append(f"{{+{new_text(part)}+}}" if plain else new_text(part), _NEW)
    return made
