"""Keys: the text by which the ledger knows a record, made from one column or from several.

It stands alone because the same rule is needed where rows are read, where one record is looked up by its key, and in
the SQL that joins content back to its records (docs/templates.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PART = re.compile(r"(?:[^|\\]|\\.)*", re.DOTALL)


def joined_key(parts: Sequence[str]) -> str:
    r"""Join the texts of a key's columns: one stays as it is; several stand between `|`, with `|` and `\` escaped."""
    if len(parts) == 1:
        return parts[0]
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def split_key(key: str, count: int) -> list[str] | None:
    """Return the texts of `count` columns that joined_key made a key from; None where it is no such key."""
    if count == 1:
        return [key]
    parts, at = [], 0
    while True:
        match = _PART.match(key, at)
        assert match is not None  # it matches nothing too
        parts.append(re.sub(r"\\(.)", r"\1", match[0], flags=re.DOTALL))
        if match.end() == len(key):
            break
        if key[match.end()] != "|":
            return None
        at = match.end() + 1
    return parts if len(parts) == count and joined_key(parts) == key else None
