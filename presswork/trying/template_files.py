"""Find the files that a template is made of, so that a save of any of them is seen.

These are the template, all that it includes or imports, its select if that is a file, and the modules of flows/ that
its output class loads. A file that is named and missing belongs too: it may come, or come back. A broken file names no
others, and these can't matter until it is saved again.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jinja2
import jinja2.meta

from presswork.errors import ConfigurationError
from presswork.output_classes.user_modules import (
    UserModule,
    is_of_presswork,
    module_of,
    modules_loaded_by,
    shown_path,
)
from presswork.prompts.front_matter import SUFFIX, blank_front_matter, read_file, read_front_matter
from presswork.prompts.syntax import make_environment


@dataclass(frozen=True, slots=True)
class TemplateFiles:
    """The files of a template, present or missing: those in the folder of templates, and the modules of flows/.

    Each path has the name that messages use.
    """

    texts: dict[Path, str]
    modules: dict[Path, str]
    module_names: frozenset[str]

    @property
    def names(self) -> dict[Path, str]:
        """All paths with their names."""
        return {**self.texts, **self.modules}


def files_of_template(folder: Path, template: str) -> TemplateFiles:
    """Find the files of a template; raises nothing."""
    first = template + SUFFIX
    texts, modules = {}, list[UserModule]()
    waiting = [first]
    while waiting:
        file = waiting.pop()
        path = folder / file
        if path in texts or not _is_inside(folder, path):
            continue
        texts[path] = file
        source = _read(path)
        if source is not None:
            waiting += _named_parts(file, source)
        if source is not None and file == first:
            select, output = _named_in_front(template, source)
            waiting += [select] if select else []
            modules = list(_modules_of(output))
    places = {path: shown_path(str(path)) or path.name for module in modules for path in module.places}
    return TemplateFiles(texts, places, frozenset(module.name for module in modules if module.file is not None))


def _is_inside(folder: Path, path: Path) -> bool:
    # No template can read any other file, even through a symbolic link.
    with suppress(OSError, ValueError, RuntimeError):
        return path.resolve().is_relative_to(folder.resolve())
    return False


def _read(path: Path) -> str | None:
    with suppress(OSError, ValueError):
        return read_file(path)
    return None


def _named_parts(file: str, source: str) -> list[str]:
    if file.endswith(".sql"):
        return []
    environment = make_environment(jinja2.BaseLoader())
    # Jinja's own parse: a part matters even if the file around it has a mistake that only Presswork rejects.
    with suppress(jinja2.TemplateSyntaxError, RecursionError):
        tree = environment.parse(blank_front_matter(source), file, file)
        return [name for name in jinja2.meta.find_referenced_templates(tree) if name]
    return []


def _named_in_front(template: str, source: str) -> tuple[str | None, str | None]:
    """Return the file of the select and the name of the output class, as far as the front matter can be read."""
    try:
        front = read_front_matter(template, source)
    except ConfigurationError:
        return None, None
    select = (front.select or "").strip()
    return select if select.endswith(".sql") else None, front.output if isinstance(front.output, str) else None


def _modules_of(output: str | None) -> Iterator[UserModule]:
    if output is None or is_of_presswork(module_of(output)):
        return
    parts = module_of(output).split(".")
    seen = set[str]()
    # Python loads the packages around a module first.
    for end in range(1, len(parts) + 1):
        for module in modules_loaded_by(".".join(parts[:end])):
            if module.name not in seen:
                seen.add(module.name)
                yield module
