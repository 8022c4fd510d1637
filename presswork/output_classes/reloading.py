"""Load the modules of output classes again after their files were saved, in the same process.

A forgotten module is executed from its source at its next import. Python would take its bytecode, which it knows by
the second and the size of the source: of two saves within a second, the later one could stay unseen.
"""

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

from presswork.output_classes.classes import forget_loading
from presswork.output_classes.user_modules import PACKAGE


def forget_modules(modules: Iterable[str]) -> None:
    """Forget modules of flows/ with all their classes, so that the next use of each loads its file as it is then."""
    names = list(modules)
    if _FROM_SOURCE not in sys.meta_path:
        sys.meta_path.insert(0, _FROM_SOURCE)
    # A file that did not exist a moment ago is only found in a folder that is listed again.
    importlib.invalidate_caches()
    forget_loading(names)
    for name in names:
        _FROM_SOURCE.names.add(f"{PACKAGE}.{name}")
        _forget(f"{PACKAGE}.{name}")


def _forget(full_name: str) -> None:
    module = sys.modules.pop(full_name, None)
    package, _, name = full_name.rpartition(".")
    # `from flows import shop` takes what the package has under this name.
    holder = sys.modules.get(package)
    if module is not None and holder is not None and getattr(holder, name, None) is module:
        delattr(holder, name)


class _SourceLoader(SourceFileLoader):
    """Loads a module from its source, and neither reads nor writes its bytecode."""

    def path_stats(self, path: str) -> dict[str, object]:
        """Raise OSError, which means that there is no bytecode to compare with."""
        raise OSError(path)


class _FromSource(MetaPathFinder):
    """Finds the modules in `names` as Python does, and gives them a loader that ignores bytecode."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module in `names`, or None for any other."""
        if fullname not in self.names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _SourceLoader(fullname, spec.loader.path)
        return spec


_FROM_SOURCE = _FromSource()
