"""Open another version of a template in a temporary folder: one that the ledger has stored, or a revision of git.

A stored version has the sources of all its parts. Its output class is today's, because classes are not stored, unless
its front matter has fields. If the class has changed since, the opened version says so.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from sqlalchemy import Engine

from db.readers.audit.compared_generations import read_template_sources
from db.readers.audit.filters import FilterError, find_template
from db.readers.past_runs.version_schemas import schema_asked_with
from presswork.errors import ConfigurationError
from presswork.escaping import quoted
from presswork.prompts.front_matter import SUFFIX
from presswork.prompts.lint import load_sound
from presswork.prompts.templates import Template, list_templates
from presswork.trying.class_changes import has_changed
from presswork.trying.git_files import find_revision
from presswork.trying.trials import LABEL_HASH, Asked

GIT = "git:"
_HEX = frozenset("0123456789abcdefABCDEF")
_CLASS_CHANGED = (
    "The output class {name} has changed since this version. Both versions ask for today's class, and are judged by it."
)


@dataclass(frozen=True, slots=True)
class OpenedVersion:
    """A version of a template: the folder with its files, its name for people, its hash, and its params.

    `note` says that its output class has changed since.
    """

    folder: Path
    label: str
    hash: str
    params: frozenset[str]
    note: str | None = None

    def fitted(self, asked: Asked) -> Asked:
        """Return what to try with this version: without the values of params that it did not have."""
        return replace(asked, sets={name: value for name, value in asked.sets.items() if name in self.params})


@contextmanager
def open_version(templates: Path, ledger: Engine | None, name: str, version: str) -> Iterator[OpenedVersion]:
    """Open a version of the template `name` for as long as the block lasts.

    `version` is the hash of a stored version, or a unique beginning of it, or `git:` and a revision of the repository
    that has the folder `templates`. Raises ConfigurationError or FilterError if there is no such version, or if it
    can't be used today.
    """
    with TemporaryDirectory(prefix="presswork-version-", ignore_cleanup_errors=True) as temporary:
        # Messages about templates name the folder that they are in.
        folder = Path(temporary) / (templates.resolve().name or "templates")
        folder.mkdir()
        if version.startswith(GIT):
            yield _from_git(templates, name, version.removeprefix(GIT), folder)
        else:
            yield _from_ledger(ledger, name, version, folder)


def _from_git(templates: Path, name: str, asked: str, folder: Path) -> OpenedVersion:
    revision = find_revision(templates, asked)
    with _written(folder, revision.label):
        revision.write(folder)
    if not (folder / f"{name}{SUFFIX}").exists():
        there = ", ".join(list_templates(folder)) or "none"
        raise ConfigurationError(
            f"There was no template {name!r} in {templates.name}/ at {revision.label}. Available there: {there}."
        )
    template = _loaded(folder, name, revision.label)
    is_changed = isinstance(template.front.output, str) and has_changed(template.output_class, revision.text_of)
    return _opened(folder, revision.label, template, is_changed=is_changed)


def _from_ledger(ledger: Engine | None, name: str, asked: str, folder: Path) -> OpenedVersion:
    if ledger is None:
        raise ConfigurationError("There is no ledger yet, so no version is stored. Write git:REVISION for one of git.")
    version = _find_stored(ledger, name, asked)
    label = version[:LABEL_HASH]
    stored = read_template_sources(ledger, version, name)
    if stored is None:
        raise ConfigurationError(f"The sources of the version {label} of {name!r} are not stored.")
    with _written(folder, label):
        for file, source in stored.sources.items():
            _write(folder, file, source)
    template = _loaded(folder, name, label)
    if template.hash != version:
        raise ConfigurationError(
            f"The stored sources of {name!r} are those of version {template.hash[:LABEL_HASH]}, not of {label}: parts "
            "of them are missing or were changed."
        )
    asked_with = schema_asked_with(ledger, name, version) if isinstance(template.front.output, str) else None
    is_changed = asked_with not in {None, hashlib.sha256(template.schema_json.encode()).hexdigest()}
    return _opened(folder, label, template, is_changed=is_changed)


def _find_stored(ledger: Engine, name: str, asked: str) -> str:
    try:
        return find_template(ledger, asked, name)
    except FilterError as error:
        if not _HEX.issuperset(asked):
            raise FilterError(f"{error} For a revision of git write {quoted(GIT + asked)}.") from None
        with suppress(FilterError):
            other = read_template_sources(ledger, find_template(ledger, asked))
            if other is not None and other.name != name:
                raise ConfigurationError(f"{asked!r} is a version of {other.name!r}, and not of {name!r}.") from None
        raise


@contextmanager
def _written(folder: Path, label: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = folder.parent
        raise ConfigurationError(f"The version {label} can't be written to {where}: {error.strerror}.") from None


def _write(folder: Path, file: str, source: str) -> None:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigurationError(f"The ledger has a template file outside of the folder: {quoted(file)}.")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source, encoding="utf-8", newline="")


def _loaded(folder: Path, name: str, label: str) -> Template:
    try:
        return load_sound(folder, name)
    except ConfigurationError as error:
        raise ConfigurationError(f"The version {label} of {name!r} can't be used today. {error}") from None


def _opened(folder: Path, label: str, template: Template, *, is_changed: bool) -> OpenedVersion:
    note = _CLASS_CHANGED.format(name=template.front.output_name) if is_changed else None
    return OpenedVersion(folder, label, template.hash, frozenset(template.front.params), note)
