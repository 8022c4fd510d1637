"""Name the version of the code that runs, for the row of a run and for deployments."""

import shutil
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from db.words import PROGRAM
from presswork.settings import ROOT


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the package's version and, if there is one, the git commit, marked `+` if files differ from it."""
    try:
        number = version(PROGRAM)
    except PackageNotFoundError:
        number = "0"
    git = shutil.which("git")
    if git is None:
        return number
    try:
        found = subprocess.run(
            [git, "describe", "--always", "--dirty=+", "--abbrev=10"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number} {found.stdout.strip()}"
