"""Ask again for the same records at each save of a template, its parts, its SQL or its output class.

A save during a trial waits for the trial's end, as its requests are paid for; of several saves only the newest counts.
"""

import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from db.database_errors import SourceError
from db.words import CONNECT
from presswork.errors import (
    CallError,
    ConfigurationError,
    EndpointError,
    MissingKeyError,
    OutputClassError,
    StoppedError,
    TemplateError,
)
from presswork.output_classes.reloading import forget_modules
from presswork.prompts.front_matter import SUFFIX
from presswork.prompts.lint import Finding, errors_that_stop, lint_template
from presswork.prompts.templates import list_templates
from presswork.trying.changes import Snapshot, changed_between, next_save, take_snapshot
from presswork.trying.template_files import TemplateFiles, files_of_template
from presswork.trying.trials import Trial

_KEY_STATUSES = frozenset({401, 402, 403})


@dataclass(frozen=True, slots=True)
class Started:
    """A version is about to be asked. `changed` are the files that were saved since the version before."""

    version: int
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """A version was asked."""

    version: int
    trial: Trial


@dataclass(frozen=True, slots=True)
class Broken:
    """A version can't be asked. Each mistake says where it is."""

    version: int
    mistakes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The next save of one of these files is awaited; a part that is missing has its name too."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """The template, or parts that it needs, were deleted, so nothing is asked until they are saved again."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Files were saved without a change of their content, so nothing is asked."""

    saved: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Capped:
    """Nothing more can be asked; this is the last event."""

    why: str


WatchEvent = Started | Version | Broken | Waiting | Gone | Unchanged | Capped


async def watch_saves(
    folder: Path, template: str, ask: Callable[[], Awaitable[Trial]]
) -> AsyncGenerator[WatchEvent, None]:
    """Ask now and at each save, until the cap is reached; a version's events are Started, its outcome and Waiting.

    `ask` makes the trial of the template as it is now; the template's output class is loaded again before. A save
    without a change asks only if the version before could not be asked. Whatever no save can repair, such as a missing
    key, ends the watch with its error. Close the generator with `aclosing`.
    """
    modules, version = _LoadedModules(), 0
    changed: tuple[str, ...] = ()
    while True:
        version += 1
        files = files_of_template(folder, template)
        seen = take_snapshot(files.names)
        modules.forget_changed(files, seen)
        yield Started(version, changed)
        outcome = await _outcome(folder, template, version, ask)
        yield outcome
        if isinstance(outcome, Version) and outcome.trial.stopped is not None:
            yield Capped(outcome.trial.stopped)
            return
        yield Waiting(_present(files, seen))
        _collect_garbage(version)
        changed, at_start = (), seen
        while not changed:
            later = await next_save(seen)
            saved = [path for path in seen if later[path] != seen[path]]
            # What kept a version from being asked may have passed, such as an outage of the endpoint.
            changed = _named(files, saved if isinstance(outcome, Broken) else changed_between(seen, later))
            if gone := _gone(folder, template, at_start, later):
                yield Gone(gone)
                changed = ()
            elif not changed:
                yield Unchanged(_named(files, saved))
            seen = later


async def _outcome(folder: Path, template: str, version: int, ask: Callable[[], Awaitable[Trial]]) -> Version | Broken:
    try:
        return Version(version, await ask())
    except (ConfigurationError, SourceError, CallError) as error:
        if _is_beyond_saves(error) or (version == 1 and _is_wrong_call(error, folder, template)):
            raise
        return Broken(version, tuple(_mistakes(folder, template, error)))


def _is_beyond_saves(error: Exception) -> bool:
    """Return whether no save can help: the key or the account is wrong, or someone stopped."""
    if isinstance(error, CallError):
        return isinstance(error, StoppedError) or error.http_status in _KEY_STATUSES
    return isinstance(error, MissingKeyError)


def _is_outage(error: Exception) -> bool:
    """Return whether the endpoint can't be reached: later it passes, but at the start its URL may be wrong."""
    return isinstance(error, EndpointError) or (isinstance(error, CallError) and error.kind == CONNECT)


def _is_wrong_call(error: Exception, folder: Path, template: str) -> bool:
    """Return whether the first trial failed for its arguments or the endpoint's URL, and not for a broken file."""
    if _is_outage(error):
        return True
    in_a_file = isinstance(error, TemplateError | OutputClassError) and template in list_templates(folder)
    return isinstance(error, ConfigurationError) and not in_a_file


def _mistakes(folder: Path, template: str, error: Exception) -> list[Finding]:
    """Return all mistakes of a template, or the error if the lint does not find it."""
    found: list[Finding] = []
    if isinstance(error, TemplateError | OutputClassError):
        found = errors_that_stop(lint_template(folder, template))
    code = type(error).__name__.removesuffix("Error").lower()
    remedy = " Save again to ask again." if _is_outage(error) else ""
    return found or [Finding(template + SUFFIX, None, "error", code, f"{error}{remedy}")]


def _collect_garbage(version: int) -> None:
    # Each version leaves some ten thousand objects in circles. Collecting them at some later moment would make a save
    # wait, for as long as all the rest of what comes before its request.
    if version > 1:
        gc.collect()
    else:
        gc.freeze()  # what is loaded by now stays, and a first collection would take as long as loading it


def _present(files: TemplateFiles, seen: Snapshot) -> tuple[str, ...]:
    """Return the names of the files to save: not of modules that are missing, of which most are names of classes."""
    return tuple(
        dict.fromkeys([*files.texts.values(), *(files.modules[path] for path in files.modules if seen[path].digest)])
    )


def _gone(folder: Path, template: str, before: Snapshot, now: Snapshot) -> tuple[str, ...]:
    """Return the files of the folder that the template as it is now needs, that were there before, and are missing."""
    needed = files_of_template(folder, template).texts
    return tuple(name for path, name in needed.items() if path in now and before[path].digest and not now[path].digest)


def _named(files: TemplateFiles, paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(files.names[path] for path in paths))


class _LoadedModules:
    """Knows from which content the modules of output classes were loaded."""

    def __init__(self) -> None:
        self._digests: dict[Path, bytes | None] = {}
        self._names: set[str] = set()

    def forget_changed(self, files: TemplateFiles, now: Snapshot) -> None:
        """Forget all modules of the template if one has changed: they hold each other's classes."""
        digests = {path: now[path].digest for path in files.modules}
        self._names |= files.module_names
        if any(self._digests.get(path, digest) != digest for path, digest in digests.items()):
            forget_modules(self._names)
        self._digests |= digests
