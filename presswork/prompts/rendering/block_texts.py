"""Render one block of a compiled template. Runs and the audit room share this, so that both get the same text."""

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2

from presswork.prompts.nulls import with_nulls


def block_pieces(
    compiled: jinja2.Template, block: str, values: Mapping[str, Any], *, names_above: bool
) -> Iterator[str]:
    """Yield the text of a block, piece by piece and with white space around it; nothing if there is no such block.

    `names_above` means that the file has statements above its blocks. Jinja's errors are passed on unchanged.
    """
    found = compiled.blocks.get(block)
    if found is None:
        return
    values = with_nulls(values)
    if names_above:
        # Blocks are rendered one by one, without the statements that Jinja runs before them: imports of macros, `set`.
        # So these are run here, with the blocks left out.
        context = compiled.new_context(dict(values))
        context.blocks = {name: [lambda _context: iter(())] for name in compiled.blocks}
        for _text in compiled.root_render_func(context):
            pass
        values = {**values, **context.vars}
    yield from found(compiled.new_context(dict(values)))
