"""Find the modules of flows/ that a module with output classes loads, by their import statements alone.

Nothing is imported, so a module that is broken or missing is found too. `classes` checks the imports before it loads
such a module, and `reloading` forgets the modules when their files were saved.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Lock

PACKAGE = "flows"
OUTPUTS = "outputs"
HEAVY = frozenset({"prefect", "sqlalchemy", "anthropic", "db"})
"""The packages that a module with output classes may not load."""
_PRESSWORK = frozenset({"content", "engine"})
_PARSING = Lock()


@dataclass(frozen=True, slots=True)
class UserModule:
    """A module of flows/ by its name in that package; without a `file` there is no such module.

    `imports` are those that run when it is loaded, each with its line.
    """

    name: str
    file: Path | None
    imports: tuple[tuple[int, str], ...] = ()

    @property
    def places(self) -> tuple[Path, ...]:
        """Its file; if it is missing, the files that would be this module."""
        return (self.file,) if self.file is not None else tuple(_places(self.name))

    @property
    def refused(self) -> tuple[int, str] | None:
        """The first import that a module with output classes may not have, with its line."""
        return next((found for found in self.imports if is_refused(found[1])), None)


def module_of(output: str) -> str:
    """Return the module in flows/ that an output class is in: `shop` for `shop.Entry`."""
    return output.rpartition(".")[0] or OUTPUTS


def is_of_presswork(module: str) -> bool:
    """Return whether a module of flows/ is part of Presswork, and so has no output classes of the user."""
    return module.partition(".")[0] in _PRESSWORK


def modules_loaded_by(module: str) -> Iterator[UserModule]:
    """Yield a module of flows/ and all modules of flows/ that it imports, each once, and those that are missing."""
    yield from _walk(module, set())


def parse_python(file: Path) -> ast.Module:
    """Parse a Python file. Raises SyntaxError, ValueError or OSError."""
    return _parse(file.read_bytes(), file.name)


def _parse(source: bytes, name: str) -> ast.Module:
    # Two threads can't parse at the same time: they would share CPython's only counter of the depth (gh-106905).
    with _PARSING:
        return ast.parse(source, name)


def file_of(module: str) -> Path | None:
    """Return the file of a module of flows/, or None if there is none."""
    return next((file for file in _places(module) if file.is_file()), None)


def shown_path(path: str | None) -> str | None:
    """Return a file of flows/ as messages show it, or None if the file is not in that folder."""
    for folder in import_module(PACKAGE).__path__:
        if path is not None and Path(path).is_relative_to(folder):
            return f"{PACKAGE}/{Path(path).relative_to(folder).as_posix()}"
    return None


def is_refused(imported: str) -> bool:
    """Return whether a module with output classes may not import this: it takes seconds, or belongs to the engine."""
    match imported.split("."):
        case [package, *_rest] if package in HEAVY:
            return True
        case ["presswork", *rest]:
            return rest[:1] != ["errors"]
        case ["flows", name, *_rest]:
            return name in _PRESSWORK
    return False


def _walk(module: str, seen: set[str]) -> Iterator[UserModule]:
    if module in seen:
        return
    seen.add(module)
    found = _read(module)
    yield found
    for _line, name in found.imports:
        parts = name.split(".")
        if parts[0] == PACKAGE and not is_refused(name):
            for end in range(2, len(parts) + 1):
                yield from _walk(".".join(parts[1:end]), seen)


def _read(module: str) -> UserModule:
    file = file_of(module)
    if file is None:
        return UserModule(module, None)
    package = f"{PACKAGE}.{module}" if file.name == "__init__.py" else f"{PACKAGE}.{module}".rpartition(".")[0]
    try:
        return UserModule(module, file, _imports_in(file.read_bytes(), package))
    except (SyntaxError, ValueError, OSError):
        return UserModule(module, file)  # loading it reports what is wrong


@lru_cache(maxsize=64)  # a class is looked up several times for each template, and parsing takes most of that
def _imports_in(source: bytes, package: str) -> tuple[tuple[int, str], ...]:
    return tuple(_imports(_parse(source, package), package))


def _imports(node: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yield the imports that run when a module is loaded: not those inside functions or only for type checkers."""
    for part in ast.iter_child_nodes(node):
        match part:
            case ast.Import():
                yield from ((part.lineno, alias.name) for alias in part.names)
            case ast.ImportFrom():
                source = _absolute(part, package)
                yield from ((part.lineno, f"{source}.{alias.name}") for alias in part.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case ast.If() if "TYPE_CHECKING" in ast.unparse(part.test):
                for statement in part.orelse:
                    yield from _imports(ast.Module([statement], []), package)
            case _:
                yield from _imports(part, package)


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    try:
        return importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
    except ImportError:
        return ""  # the import reports what is wrong


def _places(module: str) -> Iterator[Path]:
    for folder in import_module(PACKAGE).__path__:
        path = Path(folder, *module.split("."))
        yield from (path.with_suffix(".py"), path / "__init__.py")
