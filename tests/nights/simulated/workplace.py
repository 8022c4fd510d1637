"""What nights share because it takes long to make: templates, the source, the ledger's tables, the settings."""

import gc
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from db.ledger import spill
from presswork.engine.resources import source_reads
from presswork.settings import Settings
from tests.nights.simulated.database import Ledger
from tests.nights.simulated.inline import InlineReading
from tests.nights.simulated.processes import FileLocks
from tests.nights.simulated.world import World

NOTE = """---
select: SELECT id, name FROM items ORDER BY id
key: id
output: SubjectLine
max_tokens: 256
---
{% block system %}You write subject lines.{% endblock %}
{% block user %}A line about {{ record.name }}.{% endblock %}
"""
TITLE = """---
output: SubjectLine
max_tokens: 200
---
{% block system %}You shorten subject lines.{% endblock %}
{% block user %}Shorten: {{ note.subject }}{% endblock %}
"""


@dataclass
class Workplace:
    """The folders and databases of all nights of this process. `folder` is in memory if the system has such a one."""

    folder: Path
    templates: Path
    ledger: Ledger
    source: Engine
    settings: Settings
    texts: dict[str, str] = field(default_factory=dict)

    def begin(self, records: int) -> None:
        """Empty the folders, and fill the source with records."""
        for name in ("state", "spill", "temporary"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        self.texts = {f"k{number}": f"thing {number}" for number in range(records)}
        with self.source.begin() as connection:
            connection.execute(text("DELETE FROM items"))
            rows = [{"id": key, "name": name} for key, name in self.texts.items()]
            connection.execute(text("INSERT INTO items VALUES (:id, :name)"), rows)

    def spill_folders(self) -> list[Path]:
        """Return the folders that exist and may hold spill files."""
        temporary = self.folder / "temporary" / "presswork-spill"
        return [*sorted((self.folder / "spill").iterdir()), *([temporary] if temporary.is_dir() else [])]

    def edit(self, number: int, version: int) -> str | None:
        """Change a record; returns its key."""
        key = f"k{number % max(len(self.texts), 1)}"
        self.texts[key] = f"thing {number} of version {version}"
        with self.source.begin() as connection:
            connection.execute(
                text("UPDATE items SET name = :name WHERE id = :id"), {"id": key, "name": self.texts[key]}
            )
        return key

    def settings_on(self, host: str, changes: Mapping[str, Any]) -> Settings:
        """Return the settings of a machine, which has its own disk for spools and spill files."""
        own = {"state_dir": self.folder / "state" / host, "spill_dir": self.folder / "spill" / host}
        return self.settings.model_copy(update={**own, **changes})


@contextmanager
def open_workplace() -> Iterator[Workplace]:
    """Make a workplace, and replace what the product does in threads of its own."""
    memory = Path("/dev/shm")  # noqa: S108 - each commit waits for a disk elsewhere
    folder = Path(tempfile.mkdtemp(prefix="nights-", dir=memory if memory.is_dir() else None))
    patch = pytest.MonkeyPatch()
    patch.setattr(source_reads, "Reading", InlineReading)
    patch.setattr(spill, "fcntl", FileLocks)
    patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    logging.getLogger("nights").setLevel(logging.CRITICAL)
    before = logging.getLogger("prefect.presswork").level
    logging.getLogger("prefect.presswork").setLevel(logging.CRITICAL)
    try:
        templates = folder / "templates"
        templates.mkdir()
        (templates / "note.md.j2").write_text(NOTE, encoding="utf-8")
        (templates / "title.md.j2").write_text(TITLE, encoding="utf-8")
        source = create_engine(f"sqlite:///{folder / 'source.sqlite'}")
        with source.begin() as connection:
            connection.execute(text("CREATE TABLE items (id TEXT PRIMARY KEY, name TEXT)"))
        settings = Settings(
            database_url=f"sqlite:///{folder / 'ledger.sqlite'}",
            source_url=f"sqlite:///{folder / 'source.sqlite'}",
            templates_dir=templates,
            endpoint="sandbox",
        )
        gc.collect()
        gc.disable()
        gc.freeze()  # what is loaded now is never garbage: each night ends with a collection
        ledger = Ledger(folder / "ledger.sqlite")
        yield Workplace(folder, templates, ledger, source, settings)
        ledger.world = None
    finally:
        World.collect()
        gc.unfreeze()
        gc.enable()
        patch.undo()
        logging.getLogger("prefect.presswork").setLevel(before)
        shutil.rmtree(folder, ignore_errors=True)
