"""Find out what a template's expressions depend on: the record, the output of an earlier step, or parameters.

It follows names through `set`, loops, `with` and the arguments of macros. It may name too many roots, as names are
followed through all files of a template at once, and never too few in templates that read their data by these names.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from jinja2 import nodes

CALLER = "caller"
"""The name by which a macro calls the block that its caller hands it."""
_Bound = Iterator[tuple[str, frozenset[str]]]


class Roots:
    """The roots of expressions in these files; `inputs` are the names of the data, such as `record`."""

    def __init__(self, trees: Iterable[nodes.Template], inputs: Collection[str]) -> None:
        self._inputs = frozenset(inputs)
        self._named: dict[str, set[str]] = defaultdict(set)
        self._trees = list(trees)
        self._macros = {macro.name: macro for tree in self._trees for macro in tree.find_all(nodes.Macro)}
        for tree in self._trees:
            self._add_aliases(tree)
        while self._follow():
            pass

    def of(self, node: nodes.Node) -> frozenset[str]:
        """Return the names of the data that an expression, or what it contains, depends on."""
        names = [node.name] if isinstance(node, nodes.Name) else [name.name for name in node.find_all(nodes.Name)]
        return frozenset(root for name in names for root in self._of_name(name))

    def is_macro(self, node: nodes.Node) -> bool:
        """Return whether an expression is a macro's call: its text is the macro's, and marked inside the macro."""
        return isinstance(node, nodes.Call) and (self._macro_of(node) is not None or _called(node) == CALLER)

    def _of_name(self, name: str) -> frozenset[str]:
        own = {name} & self._inputs
        return frozenset(own | self._named[name]) if name in self._named else frozenset(own)

    def _macro_of(self, call: nodes.Call) -> nodes.Macro | None:
        return self._macros.get(_called(call) or "")

    def _add_aliases(self, tree: nodes.Template) -> None:
        for node in tree.find_all(nodes.FromImport):
            for name in node.names:
                if not isinstance(name, str) and name[0] in self._macros:
                    self._macros[name[1]] = self._macros[name[0]]

    def _follow(self) -> bool:
        """Follow each binding once; return whether a name got a new root."""
        grown = False
        for tree in self._trees:
            for name, roots in self._bindings(tree):
                grown |= not roots <= self._named[name]
                self._named[name] |= roots
        return grown

    def _bindings(self, tree: nodes.Template) -> _Bound:
        for node in tree.find_all(nodes.Node):
            match node:
                case nodes.Assign(target=target, node=value) | nodes.For(target=target, iter=value):
                    yield from self._bind([target], self.of(value))
                case nodes.AssignBlock(target=target):
                    yield from self._bind([target], self.of(node))
                case nodes.With(targets=targets, values=values):
                    for target, value in zip(targets, values, strict=True):
                        yield from self._bind([target], self.of(value))
                case nodes.Macro(args=args, defaults=defaults):
                    for target, value in zip(args[len(args) - len(defaults) :], defaults, strict=True):
                        yield from self._bind([target], self.of(value))
                case nodes.Call():
                    yield from self._arguments(node)
                case nodes.CallBlock(args=args):
                    # Which macro calls the block back is only known when it renders.
                    yield from self._bind(args, frozenset(self._named[CALLER + "()"]))
                case _:
                    pass

    def _arguments(self, call: nodes.Call) -> _Bound:
        if _called(call) == CALLER:
            yield CALLER + "()", frozenset().union(*map(self.of, call.args))
        macro = self._macro_of(call)
        if macro is None:
            return
        names = [argument.name for argument in macro.args]
        given = [self.of(argument) for argument in call.args]
        yield from zip(names, given, strict=False)
        yield from ((named.key, self.of(named.value)) for named in call.kwargs)
        rest = frozenset().union(*given[len(names) :], *(self.of(named.value) for named in call.kwargs))
        yield from (("varargs", rest), ("kwargs", rest))

    def _bind(self, targets: Iterable[nodes.Node], roots: frozenset[str]) -> _Bound:
        for target in targets:
            if isinstance(target, nodes.NSRef):
                yield target.name, roots
            for name in [target] if isinstance(target, nodes.Name) else target.find_all(nodes.Name):
                yield name.name, roots


def _called(call: nodes.Call) -> str | None:
    """Return the name that is called, without the module that it was imported in."""
    match call.node:
        case nodes.Name(name=str(name)) | nodes.Getattr(attr=str(name)):
            return name
        case _:
            return None
