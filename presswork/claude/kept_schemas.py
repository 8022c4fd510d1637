"""Keep what the SDK makes of output classes' schemas, because loading the SDK takes longer than a whole lint.

A kept schema is the result of one function of the SDK. Its file is named by a hash of the SDK's version and of the
schema that the function was given, so it is never stale. A file that is missing or damaged only costs that time.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path

from presswork.output_classes.references import JsonSchema

_folder: ContextVar[Path | None] = ContextVar("folder of kept schemas", default=None)


@contextmanager
def schemas_kept(folder: Path) -> Iterator[None]:
    """Keep schemas in this folder, and use those that are there, for as long as the block lasts."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def sent_schema(schema: JsonSchema) -> JsonSchema:
    """Return what the SDK makes of a schema. Raises what the SDK raises for one that it can't send."""
    folder = _folder.get()
    if folder is None:
        return _by_sdk(schema)
    file = folder / f"{_hash_of(version('anthropic') + repr(schema))}.json"
    found = _read(file)
    if found is None:
        found = _by_sdk(schema)
        _keep(file, found)
    return found


def _by_sdk(schema: JsonSchema) -> JsonSchema:
    from anthropic import transform_schema  # noqa: PLC0415 - loads the SDK, which takes a second or more

    return transform_schema(schema)


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(file: Path) -> JsonSchema | None:
    with suppress(OSError, ValueError):
        written, _, text = file.read_text(encoding="utf-8").partition("\n")
        if written == _hash_of(text):
            found: JsonSchema = json.loads(text)
            return found
    return None


def _keep(file: Path, schema: JsonSchema) -> None:
    """Write a schema, if it is the same when it is read again. Another process may write the same file now."""
    text = json.dumps(schema, default=repr)
    if json.loads(text) != schema:
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as written:
            written.write(f"{_hash_of(text)}\n{text}")
        Path(written.name).replace(file)
