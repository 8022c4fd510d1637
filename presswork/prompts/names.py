"""Say what is wrong with a template's name: that nothing has it, or that Prefect accepts no deployment of this name.

A template that selects its own records gives its name to a deployment. A file may have a name that Prefect refuses. The
lint uses this rule, and so does `presswork deploy`, which leaves such a template out. `presswork run NAME` needs no
deployment, and runs it anyway.
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Sequence

from db.words import SHARDS

FORBIDDEN = "/ % & < >"
"""What Prefect refuses in the name of a flow or a deployment."""
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, bytes that are not UTF-8, and line ends other than \\n."""
_AROUND = re.compile(r"^.*[/\\]|(\.md)?\.j2$|\.py$", re.DOTALL)
"""What the path of a template or a flow has around its name."""


def near_name(name: str, known: Sequence[str]) -> str:
    """Suggest, after a blank, the known name that is nearest to an unknown one; empty if none is near.

    A path is read as the name of its file, because shells complete to paths.
    """
    near = difflib.get_close_matches(_AROUND.sub("", name).replace("-", "_"), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def name_fault(name: str) -> str | None:
    """Return why no deployment can have this name; None if one can."""
    if not name:
        return "A deployment needs a name."
    if refused := sorted(set(name) & set(FORBIDDEN.split())):
        return (
            f"A deployment's name can't contain {' and '.join(refused)} "
            f"(not allowed: {FORBIDDEN} and control characters)."
        )
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        return "A deployment's name can't contain control characters, or bytes that are not UTF-8."
    return None


def template_name_fault(name: str, names: Collection[str]) -> str | None:
    """Return why a template of this name can't have a deployment, or None; `names` has all templates."""
    fault = name_fault(name)
    whole = name.removesuffix(SHARDS)
    if fault is None and whole != name and whole in names:
        fault = f"{name!r} is the name of the deployment for the shards of {whole!r}."
    return f"{fault} Rename the template's file." if fault else None
