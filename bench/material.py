"""Make the requests of all clients: the bare loops send the same requests as Presswork."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

MODEL, MAX_TOKENS = "claude-sonnet-4-6", 256
SELECT = "SELECT id, name, category, features FROM items"
VIEW = "SELECT id, name, category, price, made, features FROM goods"
TEMPLATE = "bench_subject"
SHARED = {"5m": "bench_shared", "off": "bench_shared_off"}
"""Templates with a system block of 5,000 tokens, by their setting `cache`."""

SYSTEM = """You write for the newsletter of a small shop that sells tea, coffee and what belongs to them.

Your task: write one subject line and one preheader that announce one product.
- The subject line makes a reader who likes the shop stop at one particular thing: a figure, a scene, a contrast.
60 characters at most; the first 35 must make sense alone, for telephones.
- The preheader adds a second reason, 20 to 110 characters, and repeats no word of weight from the subject line.
- Promise only what the product holds. No urgency, no first names, no "newsletter"."""

USER = "Name: {name}\nCategory: {category}\nFeatures: {features}"

_KINDS = ("tea", "coffee", "cup", "kettle", "grinder", "biscuit")
_FEATURES = (
    "picked by hand in the second week of April and dried over embers of oak",
    "glazed twice and fired at 1,260 degrees, so that no two of them are alike",
    "sold in tins of 80 g that close tightly; a tin makes about forty cups",
    "made by a family of three in a village that no railway reaches",
    "tastes of hay, of apricot and a little of rain on warm stone",
)


def write_source(file: Path, count: int) -> None:
    """Make a SQLite database with `count` items."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, category TEXT, features TEXT)")
        database.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", map(_item, range(1, count + 1)))


def _item(number: int) -> tuple[int, str, str, str]:
    kind = _KINDS[number % len(_KINDS)]
    features = "; ".join(_FEATURES[(number // step) % len(_FEATURES)] for step in (1, 5, 25))
    return number, f"Number {number} {kind}", kind, features


def write_templates(folder: Path) -> None:
    """Write the templates that Presswork runs."""
    _write_template(folder, TEMPLATE, SYSTEM, "5m")
    for cache, name in SHARED.items():
        _write_template(folder, name, _shared_system(), cache)


def _write_template(folder: Path, name: str, system: str, cache: str) -> None:
    user = re.sub(r"{(\w+)}", r"{{ record.\1 }}", USER)
    (folder / f"{name}.md.j2").write_text(
        f"---\nselect: {SELECT}\n"
        f"key: id\noutput: SubjectLine\nmodel: {MODEL}\nmax_tokens: {MAX_TOKENS}\ncache: '{cache}'\n"
        f"---\n{{% block system %}}\n{system}\n{{% endblock %}}\n{{% block user %}}\n{user}\n{{% endblock %}}\n"
    )


def _shared_system() -> str:
    items = (_item(number) for number in itertools.count(1))
    text = SYSTEM + "\n\nWhat we sell:"
    while len(text) < 4 * 5_000:
        _number, name, kind, features = next(items)
        text += f"\n- {name} ({kind}): {features}"
    return text[: 4 * 5_000]


def bodies(file: Path, schema: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """Read the items and yield each one's request, as Presswork would send it."""
    # Without a mark for the prompt cache: the text is shorter than the model caches.
    system = [{"type": "text", "text": SYSTEM}]
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        for item in database.execute(f"{SELECT} ORDER BY id LIMIT ?", (limit,)):
            yield {
                "model": MODEL,
                "max_tokens": MAX_TOKENS,
                "messages": [{"role": "user", "content": USER.format(**item)}],
                "output_config": {"format": {"type": "json_schema", "schema": schema}},
                "system": system,
            }
