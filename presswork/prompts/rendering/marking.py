"""Mark the part of a stored prompt that came from its record, by rendering its stored template once more.

Expressions on data put characters around their text that are in neither the data nor the prompt. Marks are returned
only if the text without those characters is the stored prompt, so filters and conditions that these characters disturb
can't produce wrong marks. Nothing here reads a file: the template and its includes come from the ledger.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.meta
import orjson
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from presswork.errors import ConfigurationError
from presswork.prompts.front_matter import SUFFIX, blank_front_matter, read_front_matter
from presswork.prompts.rendering.block_texts import block_pieces
from presswork.prompts.rendering.roots import Roots
from presswork.prompts.syntax import GLOBALS, Environment, environment_of, make_environment, parse
from presswork.prompts.variables import above

RECORD_NAME = "record"
PARAMS_NAME = "params"
NO_TEMPLATE = "The ledger does not have this version of the template, so what came from the record is not marked."
OTHER_TEXT = (
    "Rendering the stored template with the stored record again gives another text, so what came from the record is "
    "not marked."
)
_MARK = "mark for the audit room"
_CANDIDATES = (*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xF1000))
"""Characters that no writing uses: those that Unicode keeps for programs, then private ones."""


@dataclass(frozen=True, slots=True)
class PromptPiece:
    """A part of a prompt. `source` is the data that it depends on, None for the template's own words.

    The source is `record`, the name of an earlier step, or `params`; the first of these if there are several.
    """

    text: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class MarkedPrompt:
    """A prompt's text in pieces. `why_unmarked` says in a sentence why it is one piece; None if it is marked."""

    pieces: tuple[PromptPiece, ...]
    why_unmarked: str | None = None


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A stored version of a template: its name, the texts of its files, and their parse."""

    name: str
    sources: Mapping[str, str]
    trees: Mapping[str, nodes.Template]

    @property
    def reads(self) -> frozenset[str]:
        """The names that its files read from outside."""
        found: set[str] = set()
        for tree in self.trees.values():
            found |= jinja2.meta.find_undeclared_variables(tree)
        return frozenset(found.difference(GLOBALS))


def read_stored(name: str, sources: Mapping[str, str]) -> StoredSource | None:
    """Parse a stored template; None if today's rules can't read it."""
    environment = make_environment(jinja2.DictLoader({}))
    wanted, trees = [name + SUFFIX], dict[str, nodes.Template]()
    try:
        while wanted:
            file = wanted.pop()
            if file not in trees:
                trees[file] = parse(environment, file, sources[file])
                wanted += filter(None, jinja2.meta.find_referenced_templates(trees[file]))
    except (ConfigurationError, KeyError, TypeError, RecursionError):
        return None
    return StoredSource(name, sources, trees)


def mark_prompt(
    stored: StoredSource | None, inputs: Iterable[Mapping[str, Any]], given: Mapping[str, Any], sent: str
) -> MarkedPrompt:
    """Mark what came from data in the user's part of a prompt, as it was `sent`.

    `inputs` are the data that the prompt may have been made from: the record and the outputs of earlier steps, by name.
    The first that gives the prompt counts. `given` are the values that the run was started with.
    """
    if stored is None:
        return MarkedPrompt((PromptPiece(sent),), NO_TEMPLATE)
    for each in inputs:
        try:
            values = {PARAMS_NAME: _params(stored, given), **each}
            pieces = _rendered(stored, values, sent)
        except Exception:  # noqa: BLE001, S112 - whatever a stored template raises, its prompt is shown without marks
            continue
        if "".join(piece.text for piece in pieces) == sent:
            return MarkedPrompt(pieces)
    return MarkedPrompt((PromptPiece(sent),), OTHER_TEXT)


def _params(stored: StoredSource, given: Mapping[str, Any]) -> dict[str, Any]:
    front = read_front_matter(stored.name, stored.sources[stored.name + SUFFIX])
    return {
        name: param.parse(name, given[name]) if given.get(name) is not None else param.default
        for name, param in front.params.items()
    }


def _rendered(stored: StoredSource, values: Mapping[str, Any], sent: str) -> tuple[PromptPiece, ...]:
    names = sorted(values, key=lambda name: (name != RECORD_NAME, name == PARAMS_NAME, name))
    signs = _unused_signs(len(names) + 1, sent, stored, values)
    environment = environment_of(_Marking, _loader(stored.sources))
    environment.use(Roots(stored.trees.values(), names), names, signs)
    file = stored.name + SUFFIX
    compiled = environment.get_template(file)
    pieces, length = [], 0
    for piece in block_pieces(compiled, "user", values, names_above=bool(above(stored.trees[file]))):
        pieces.append(piece)
        length += len(piece)
        if length > 3 * len(sent) + 10_000:  # each mark has two signs; the text can't be the prompt any more
            break
    return tuple(_stripped(_split("".join(pieces), names, signs)))


def _loader(sources: Mapping[str, str]) -> jinja2.BaseLoader:
    return jinja2.FunctionLoader(lambda file: blank_front_matter(sources[file]))


def _unused_signs(count: int, sent: str, stored: StoredSource, values: Mapping[str, Any]) -> str:
    """Choose characters that are in none of the texts. ValueError if the data is full of them."""
    texts = (sent, *stored.sources.values(), orjson.dumps(values, default=str).decode())
    used = set[str]().union(*texts)
    signs = [sign for sign in map(chr, _CANDIDATES) if sign not in used][:count]
    if len(signs) < count:
        raise ValueError("no characters are left for marks")
    return "".join(signs)


class _Marking(Environment):
    """A template's environment in which an expression on data puts a sign before its text and one after it."""

    def use(self, roots: Roots, names: Sequence[str], signs: str) -> None:
        """Set the names of the data and their signs, and the sign that ends a mark, which is the last."""
        self.filters[_MARK] = self._mark
        self._marker = _Marker(roots, names)
        self._begin, self._end = signs[:-1], signs[-1]

    def _mark(self, value: Any, source: int) -> str:
        text = str(value)
        # What a macro or a `set` block wrote is marked inside.
        return f"{self._begin[source]}{text}{self._end}" if text and self._end not in text else text

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        found: nodes.Template = self._marker.visit(super()._parse(source, name, filename))
        return found


class _Marker(NodeTransformer):
    """Wraps each expression that writes text and depends on data in the filter that marks it."""

    def __init__(self, roots: Roots, names: Sequence[str]) -> None:
        self._roots = roots
        self._names = names

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802 - Jinja's name for it
        """Mark each part of an output."""
        node.nodes = [self._marked(part) for part in node.nodes]
        return node

    def _marked(self, node: nodes.Expr) -> nodes.Expr:
        match node:
            case nodes.CondExpr():
                node.expr1 = self._marked(node.expr1)
                node.expr2 = None if node.expr2 is None else self._marked(node.expr2)
                return node
            case nodes.Concat():
                node.nodes = [self._marked(part) for part in node.nodes]
                return node
        roots = self._roots.of(node)
        first = next((number for number, name in enumerate(self._names) if name in roots), None)
        if first is None or self._roots.is_macro(node):
            return node
        return nodes.Filter(node, _MARK, [nodes.Const(first)], [], None, None, lineno=node.lineno)


def _split(text: str, names: Sequence[str], signs: str) -> Iterator[PromptPiece]:
    """Cut a text at the signs; ValueError if they are not in pairs."""
    end = signs[-1]
    source: str | None = None
    first, *rest = re.split(f"([{signs}])", text)
    yield PromptPiece(first)
    for sign, part in zip(rest[::2], rest[1::2], strict=True):
        if (sign == end) != (source is not None):
            raise ValueError("a filter moved a mark")
        source = None if sign == end else names[signs.index(sign)]
        yield PromptPiece(part, source)
    if source is not None:
        raise ValueError("a filter dropped a mark")


def _stripped(pieces: Iterable[PromptPiece]) -> list[PromptPiece]:
    """Strip the text as a prompt is stripped, across its pieces, and leave out empty ones."""
    kept = list(pieces)
    while kept and not (text := kept[0].text.lstrip()):
        kept.pop(0)
    if kept:
        kept[0] = PromptPiece(text, kept[0].source)
    while kept and not (text := kept[-1].text.rstrip()):
        kept.pop()
    if kept:
        kept[-1] = PromptPiece(text, kept[-1].source)
    return [piece for piece in kept if piece.text]
