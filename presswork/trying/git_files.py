"""Read the files of a folder as they were at a revision of its git repository.

The revision is a text from outside: it is never an option of git, and no shell reads it. Git is called without the
variables that would lead it to another repository.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from presswork.errors import ConfigurationError
from presswork.escaping import quoted, visible

GIT_WITHIN_S = 30.0
_ELSEWHERE = (
    "GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_NAMESPACE "
    "GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CEILING_DIRECTORIES"
).split()
"""Variables that a hook of git sets, for the repository that the hook belongs to."""
_LINK = "120000"
_BLOB = "blob"


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit of the repository that has `folder`; `asked` is the text that named it."""

    folder: Path
    asked: str
    commit: str

    @property
    def label(self) -> str:
        """Name it for people."""
        return f"git:{visible(self.asked)} ({self.commit[:10]})"

    def write(self, target: Path) -> None:
        """Write the folder's files of this revision into another folder; raises ConfigurationError."""
        entries = [entry for entry in self._entries() if _is_inside(entry.path)]
        texts = self._contents([entry.blob for entry in entries])
        # Links are last, so that no file is written through one.
        for entry, content in sorted(zip(entries, texts, strict=True), key=lambda pair: pair[0].is_link):
            file = target / entry.path
            file.parent.mkdir(parents=True, exist_ok=True)
            if entry.is_link:
                file.symlink_to(os.fsdecode(content))
            else:
                file.write_bytes(content)

    def text_of(self, file: Path) -> str | None:
        """Return the text of a file at this revision; None if it was not there or is outside of the repository."""
        path = os.path.relpath(file, self.folder.resolve())
        # With a dot in front, git reads the path from this folder.
        shown = _git(self.folder, "cat-file", "blob", f"{self.commit}:./{Path(path).as_posix()}")
        return shown.stdout.decode(errors="replace") if shown.returncode == 0 else None

    def _entries(self) -> Iterator["_Entry"]:
        listed = _require(_git(self.folder, "ls-tree", "-r", "-z", self.commit, "--", "."), self)
        for line in filter(None, listed.split(b"\0")):
            about, _tab, path = line.partition(b"\t")
            mode, kind, blob = about.decode().split()
            if kind == _BLOB:
                yield _Entry(PurePosixPath(os.fsdecode(path)), blob, mode == _LINK)

    def _contents(self, blobs: Sequence[str]) -> list[bytes]:
        given = "".join(f"{blob}\n" for blob in blobs).encode()
        rest = _require(_git(self.folder, "cat-file", "--batch", given=given), self)
        found: list[bytes] = []
        for blob in blobs:
            head, _line, rest = rest.partition(b"\n")
            if head.endswith(b" missing"):
                name = self.folder.name
                raise ConfigurationError(f"The repository of {name}/ lacks the file {blob[:10]} of {self.label}.")
            size = int(head.split()[-1])
            found.append(rest[:size])
            rest = rest[size + 1 :]
        return found


@dataclass(frozen=True, slots=True)
class _Entry:
    path: PurePosixPath
    blob: str
    is_link: bool


def find_revision(folder: Path, asked: str) -> Revision:
    """Find a revision by a branch, a tag, `HEAD~2` or a hash; raises ConfigurationError if there is none."""
    if shutil.which("git") is None:
        raise ConfigurationError("There is no git on this machine. Install it, or name a version by its hash.")
    inside = _git(folder, "rev-parse", "--show-prefix")
    if inside.returncode:
        raise ConfigurationError(f"{folder} is in no git repository that can be read: {_reason(inside)}.")
    # Git itself accepts no name that begins with a dash.
    is_name = asked.isprintable() and not asked.startswith("-") and bool(asked.strip())
    only = ("--verify", "--quiet", "--end-of-options")
    found = _git(folder, "rev-parse", *only, f"{asked}^{{commit}}") if is_name else None
    if found is None or found.returncode:
        raise ConfigurationError(
            f"There is no revision {quoted(asked)} in the git repository of {folder.name}/. "
            f"`git log --oneline -- {folder.name}` lists those that changed it."
        )
    return Revision(folder, asked, found.stdout.decode().split()[-1])


def _git(folder: Path, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    own = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    # Messages in English, no question for a password, no download of what a partial clone lacks.
    own |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "--no-pager", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, env=own, timeout=GIT_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"git can't read {folder}: {getattr(error, 'strerror', None) or error}.") from None


def _require(done: "subprocess.CompletedProcess[bytes]", revision: Revision) -> bytes:
    if done.returncode:
        raise ConfigurationError(f"git can't read {revision.label}: {_reason(done)}.")
    return done.stdout


def _reason(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = visible(done.stderr.decode(errors="replace")).strip().splitlines()
    return lines[0].removeprefix("fatal: ").rstrip(".") if lines else f"exit status {done.returncode}"


def _is_inside(path: PurePosixPath) -> bool:
    return not path.is_absolute() and ".." not in path.parts
