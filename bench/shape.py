"""Count the product's lines of code, modules in a folder and duplicate names; `python -m bench.shape` prints them.

The product is flows/, presswork/ and db/, without the sandbox. A line of code has a token that is neither a
comment nor part of a docstring. `tests/test_shape.py` checks the limits.
"""

from __future__ import annotations

import ast
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NO_CODE = frozenset(
    (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    )
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A module: its path from the project's root, its syntax tree, and its numbers of lines and of lines of code."""

    path: Path
    tree: ast.Module
    lines: int
    code: int


def product_files(root: Path = ROOT) -> list[SourceFile]:
    """Read the modules of the product."""
    return [file for file in _files(root) if "sandbox" not in file.path.parts]


def sandbox_files(root: Path = ROOT) -> list[SourceFile]:
    """Read the modules of the sandbox."""
    return [file for file in _files(root) if "sandbox" in file.path.parts]


def bench_files(root: Path = ROOT) -> list[SourceFile]:
    """Read the modules of the benchmark."""
    return _files(root, "bench")


def _files(root: Path, *tops: str) -> list[SourceFile]:
    folders = tops or ("flows", "presswork", "db", "sandbox")
    paths = sorted(path for top in folders for path in (root / top).rglob("*.py"))
    return [_read(path, root) for path in paths if "__pycache__" not in path.parts]


def _read(path: Path, root: Path) -> SourceFile:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    documented = set(_docstring_lines(tree))
    lines = iter(text.splitlines(keepends=True))
    code = {
        line
        for token in tokenize.generate_tokens(lambda: next(lines, ""))
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return SourceFile(path.relative_to(root), tree, text.count("\n"), len(code - documented))


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of docstrings: of modules, classes, functions and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def modules_by_folder(files: list[SourceFile]) -> Counter[str]:
    """Count the modules of each folder, without `__init__` and without migrations, whose number always grows."""
    paths = (file.path for file in files)
    return Counter(
        path.parent.as_posix() for path in paths if path.name != "__init__.py" and path.parent.name != "versions"
    )


def parameters(files: list[SourceFile]) -> list[tuple[int, str]]:
    """List the functions by their number of parameters, without `self` and `cls`; the greatest first."""
    found = [
        (_parameter_count(node), f"{file.path}: {node.name}")
        for file in files
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(found, reverse=True)


def _parameter_count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = node.args
    named = [*given.posonlyargs, *given.args]
    bound = bool(named) and named[0].arg in {"self", "cls"}
    return len(named) + len(given.kwonlyargs) + bool(given.vararg) + bool(given.kwarg) - bound


def classes_twice(files: list[SourceFile]) -> dict[str, list[str]]:
    """Find the names of classes and public type aliases that are defined in more than one place."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(file.path.as_posix())
        for name, _value in _assigned(file):
            # A single letter is a type variable, which means nothing outside its module.
            if len(name) > 1 and name[0].isupper() and not name.isupper():
                found[name].append(file.path.as_posix())
    return {name: places for name, places in sorted(found.items()) if len(places) > 1}


def constants_twice(files: list[SourceFile]) -> dict[str, list[str]]:
    """Find the public constants with the name of another and a different value, except those of migrations."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for file in files:
        if file.path.parent.name != "versions":
            found_here = {name: ast.unparse(value) for name, value in _assigned(file) if name.isupper()}
            for name, value in found_here.items():
                found[name][file.path.as_posix()] = value
    return {
        name: list(values) for name, values in sorted(found.items()) if len(name) > 1 and len(set(values.values())) > 1
    }


def _assigned(file: SourceFile) -> Iterator[tuple[str, ast.expr]]:
    """Yield the public names that a module assigns, each with its value."""
    for node in file.tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        for target in targets:
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for name, each in pairs:
                if isinstance(name, ast.Name) and not name.id.startswith("_"):
                    yield name.id, each


def modules_twice(files: list[SourceFile]) -> dict[str, list[str]]:
    """Find the module names that are in more than one folder."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if file.path.name != "__init__.py":
            found[file.path.stem].append(file.path.as_posix())
    return {name: places for name, places in sorted(found.items()) if len(places) > 1}


def main() -> None:
    """Print the figures."""
    files = product_files()
    everything = files + sandbox_files()
    code: Counter[str] = Counter()
    for file in files:
        code["/".join(file.path.parts[: min(2, len(file.path.parts) - 1)])] += file.code
    for folder, lines in sorted(code.items()):
        print(f"{lines:7,}  {folder}")
    print(f"{sum(code.values()):7,}  lines of code in {len(files)} files")
    print("modules in the largest folders:", modules_by_folder(files).most_common(3))
    print("longest files:", sorted(((file.lines, str(file.path)) for file in files), reverse=True)[:3])
    print("longest lists of parameters:", parameters(files)[:3])
    print("names of types that are defined twice:", sorted(classes_twice(everything)))
    print("names of constants that are defined twice:", sorted(constants_twice(everything)))
    print("module names in two folders:", sorted(modules_twice(everything)))


if __name__ == "__main__":
    main()
