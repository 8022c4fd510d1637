"""What nights share because it takes long to make: templates, the source, the ledger's tables, the settings."""

import gc
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from db.ledger import spill
from db.search.index_places import create_index, remove_index
from db.sources import spool
from presswork.engine.resources import source_reads
from presswork.settings import Settings
from tests.nights.plan import Night
from tests.nights.simulated.database import TROUBLES, Ledger, Outage
from tests.nights.simulated.disks import Disks
from tests.nights.simulated.inline import InlineReading
from tests.nights.simulated.processes import FileLocks
from tests.nights.simulated.sources import Source
from tests.nights.simulated.world import World

NOTE = """---
select: SELECT id, name FROM items ORDER BY id
key: id
output: SubjectLine
max_tokens: 256
---
{% block system %}You write subject lines.{% endblock %}
{% block user %}A line about {{ record.name.strip() }}.{% endblock %}
"""
TITLE = """---
output: SubjectLine
max_tokens: 200
---
{% block system %}You shorten subject lines.{% endblock %}
{% block user %}Shorten: {{ note.subject }}{% endblock %}
"""
TEMPLATES = {"note": NOTE, "title": TITLE}
RECORDS_KEPT_S = 3_000.0
"""How long the records of an incomplete run are kept: a week is longer than any night."""


@dataclass
class Workplace:
    """The folders and databases of all nights of this process. `folder` is in memory if the system has such a one."""

    folder: Path
    templates: Path
    ledger: Ledger
    source: Source
    disks: Disks
    settings: Settings

    def begin(self, world: World, plan: Night, troubles: Sequence[Outage]) -> None:
        """Start a night: with empty folders, whole templates, a full source, and an empty ledger."""
        for name in ("state", "spill", "temporary"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        self.write_templates()
        self.source.begin(world, troubles, plan.records)
        self.disks.begin(world, troubles)
        self.ledger.begin(
            world, [each for each in troubles if each.trouble in TROUBLES], [f"k{number}" for number in plan.refused]
        )
        remove_index(self.ledger.engine)
        if plan.indexed:
            create_index(self.ledger.engine)

    def write_templates(self) -> None:
        """Write all templates as they should be."""
        for name, text in TEMPLATES.items():
            self._template(name).write_text(text, encoding="utf-8")

    def break_template(self, name: str) -> None:
        """Leave a template as somebody does in the middle of an edit."""
        whole = TEMPLATES[name]
        self._template(name).write_text(whole.replace("{% endblock %}", "", 1) + "{% if", encoding="utf-8")

    def _template(self, name: str) -> Path:
        return self.templates / f"{name}.md.j2"

    def spill_folders(self) -> list[Path]:
        """Return the folders that exist and may hold spill files."""
        temporary = self.folder / "temporary" / "presswork-spill"
        return [*sorted((self.folder / "spill").iterdir()), *([temporary] if temporary.is_dir() else [])]

    def spool_folder(self, host: str) -> Path:
        """Return the folder of the records that runs on a machine keep."""
        return self.settings_on(host, {}).spool_folder

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
    patch.setattr(spool, "KEPT_S", RECORDS_KEPT_S)
    patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    logging.getLogger("nights").setLevel(logging.CRITICAL)
    before = logging.getLogger("prefect.presswork").level
    logging.getLogger("prefect.presswork").setLevel(logging.CRITICAL)
    try:
        templates = folder / "templates"
        templates.mkdir()
        source, disks = Source(create_engine(f"sqlite:///{folder / 'source.sqlite'}")), Disks(folder)
        source.install(patch)
        disks.install(patch)
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
        yield Workplace(folder, templates, ledger, source, disks, settings)
        ledger.world = None
    finally:
        World.collect()
        gc.enable()
        patch.undo()
        logging.getLogger("prefect.presswork").setLevel(before)
        shutil.rmtree(folder, ignore_errors=True)
