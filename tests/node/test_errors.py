"""The tree of exceptions drawn in `node.errors` is the code's own. Read from source: no imports."""

import ast
import builtins
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def _exceptions() -> dict[str, set[str]]:
    """Return the base classes of every exception class in the product, by class name."""
    bases: dict[str, set[str]] = {}
    for package in ("schemas", "protocol", "executor", "node"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    bases[node.name] = {ast.unparse(base).split(".")[-1] for base in node.bases}
    exceptions: dict[str, set[str]] = {}
    while True:
        more = {
            name: names
            for name, names in bases.items()
            if names & (BUILT_IN | {"ClickException", "TooSlowError"} | exceptions.keys())
        }
        if more.keys() == exceptions.keys():
            return more
        exceptions = more


def test_every_exception_has_the_common_base() -> None:
    exceptions = _exceptions()
    names = {"HeliumError"}
    while more := {name for name, bases in exceptions.items() if bases & names} - names:
        names |= more
    assert exceptions.keys() - names == set()


def test_drawn_tree_lists_every_exception() -> None:
    drawing = (ROOT / "node" / "errors.py").read_text(encoding="utf-8").split('"""')[1]
    branches = re.findall(r"[├└]─ ([\w, ]+?)  ", drawing)
    listed = {"HeliumError"} | {name for branch in branches for name in branch.split(", ")}
    assert listed == _exceptions().keys()


def test_no_exception_name_has_a_suffix() -> None:
    suffixed = [name for name in _exceptions() if name.endswith(("Error", "Exception"))]
    assert suffixed == ["HeliumError"]
