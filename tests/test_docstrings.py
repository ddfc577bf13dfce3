"""Every public name of the losses and metrics is explained, and the explanation names what the code has."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from house import ROOT, modules

PACKAGES = ("facekd.losses", "facekd.metrics")
SECTIONS = {"Args", "Attributes", "Returns", "Raises", "Example", "Examples", "Yields", "Note"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Described:
    """One public function or class and the code around it."""

    name: str
    path: Path
    node: Function | ast.ClassDef
    raisers: frozenset[str] = field(repr=False, default=frozenset())

    @property
    def place(self) -> str:
        return f"{self.path}:{self.node.lineno}: {self.name}"


def section(docstring: str, wanted: str) -> str | None:
    """The indented text under a Google-style heading, or nothing."""
    found: list[str] | None = None
    for line in docstring.splitlines():
        heading = re.fullmatch(r"(\w+):", line)
        if heading and heading[1] in SECTIONS:
            if found is not None:
                break
            found = [] if heading[1] == wanted else None
        elif found is not None:
            if line.strip() and not line.startswith(" "):
                break
            found.append(line)
    return None if found is None else "\n".join(found)


def documented_names(docstring: str) -> set[str]:
    """Names with an entry of their own under Args or Attributes; one entry may name several."""
    text = (section(docstring, "Args") or "") + "\n" + (section(docstring, "Attributes") or "")
    entries = re.findall(r"^ {4}([*`\w][*`\w, ]*?)(?: \([^)]*\))?:(?:\s|$)", text, re.MULTILINE)
    return {name.strip(" *`") for entry in entries for name in entry.split(",")}


def parameters(node: Function | ast.ClassDef) -> set[str]:
    """Names a caller gives: parameters of a function or constructor, or the fields of a dataclass."""
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if isinstance(member, Function) and member.name == "__init__":
                return parameters(member) - {"self"}
        fields = (member for member in node.body if isinstance(member, ast.AnnAssign))
        named = {
            member.target.id: ast.unparse(member.annotation) for member in fields if isinstance(member.target, ast.Name)
        }
        return {name for name, kind in named.items() if not name.startswith("_") and "ClassVar" not in kind}
    arguments = node.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in given if argument is not None}


def raises_directly(node: ast.AST) -> bool:
    """Whether the body itself raises; the bodies of nested definitions are not its own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise):
            return True
        nested = isinstance(child, Function | ast.ClassDef | ast.Lambda)
        if isinstance(node, ast.ClassDef):
            nested = not (isinstance(child, Function) and child.name in {"__init__", "__post_init__"})
        if not nested and raises_directly(child):
            return True
    return False


def called_names(node: ast.AST) -> set[str]:
    """Bare and last names of everything the body calls."""
    calls = (child.func for child in ast.walk(node) if isinstance(child, ast.Call))
    return {func.id if isinstance(func, ast.Name) else getattr(func, "attr", "") for func in calls}


def functions_that_raise(trees: list[ast.Module]) -> frozenset[str]:
    """Names of the functions that raise, themselves or through others of the same package."""
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, Function | ast.ClassDef)]
    raising = {node.name for node in nodes if raises_directly(node)}
    while True:
        more = {node.name for node in nodes if called_names(node) & raising} - raising
        if not more:
            return frozenset(raising)
        raising |= more


def problems(described: Described) -> list[str]:
    """What the docstring of one public name lacks or invents."""
    docstring = ast.get_docstring(described.node)
    if not docstring:
        return ["has no docstring"]
    found = []
    names, documented = parameters(described.node), documented_names(docstring)
    if missing := sorted(names - documented):
        found.append(f"Args do not name {', '.join(missing)}")
    if unknown := sorted(documented - names):
        found.append(f"Args name {', '.join(unknown)}, which it does not take")
    if ">>>" not in docstring:
        found.append("has no >>> example")
    told = section(docstring, "Raises") is not None
    if raises_directly(described.node) and not told:
        found.append("raises, and has no Raises section")
    if told and not raises_directly(described.node) and not called_names(described.node) & described.raisers:
        found.append("has a Raises section, and neither raises nor calls what does")
    return found


def public(tree: ast.Module) -> list[Function | ast.ClassDef]:
    nodes = [node for node in tree.body if isinstance(node, Function | ast.ClassDef)]
    return [node for node in nodes if not node.name.startswith("_")]


def everything_public() -> list[Described]:
    found = []
    for package in PACKAGES:
        files = [path for name, path in modules() if name == package or name.startswith(f"{package}.")]
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
        raisers = functions_that_raise(trees)
        for path, tree in zip(files, trees, strict=True):
            for node in public(tree):
                found.append(Described(node.name, path.relative_to(ROOT), node, raisers))
    return found


@pytest.mark.parametrize(
    "described", everything_public(), ids=lambda described: f"{described.path.stem}.{described.name}"
)
def test_docstring_names_what_the_code_has(described: Described) -> None:
    found = problems(described)
    assert not found, "\n" + "\n".join(f"{described.place} {problem}" for problem in found)


def test_both_packages_are_walked() -> None:
    seen = {described.path.parent.name for described in everything_public()}
    assert seen == {"losses", "metrics"}


def check(source: str) -> list[str]:
    tree = ast.parse(inspect.cleandoc(source))
    (node, *_) = public(tree)
    return problems(Described(node.name, Path("snippet.py"), node, functions_that_raise([tree])))


GOOD = '''
def halve(value, *, steps=1):
    """Halve a number.

    Args:
        value: The number.
        steps: How often.

    Returns:
        The half.

    Raises:
        ValueError: If ``steps`` is negative.

    Example:
        >>> halve(2)
        1.0
    """
    if steps < 0:
        raise ValueError("steps")
    return value / 2**steps
'''


def test_a_good_docstring_passes() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"""Halve', 'pass\n    """Halve', "has no docstring"),
        ("        steps: How often.\n", "", "Args do not name steps"),
        ("    steps: How", "    times: How", "Args do not name steps"),
        ("    steps: How", "    times: How", "Args name times, which it does not take"),
        (">>> halve(2)", "halve(2)", "has no >>> example"),
        ("    Raises:\n        ValueError: If ``steps`` is negative.\n", "", "raises, and has no Raises section"),
        ('raise ValueError("steps")', "return 0", "has a Raises section, and neither raises nor calls what does"),
    ],
)
def test_a_poor_docstring_is_found(old: str, new: str, problem: str) -> None:
    assert old in GOOD
    assert problem in check(GOOD.replace(old, new))


def test_raising_through_a_helper_counts_as_raising() -> None:
    indirect = GOOD.replace('if steps < 0:\n        raise ValueError("steps")', "check(steps)")
    helper = '\n\ndef check(steps):\n    if steps < 0:\n        raise ValueError("steps")\n'
    assert check(indirect + helper) == []
    assert check(indirect) == ["has a Raises section, and neither raises nor calls what does"]


def test_fields_of_a_dataclass_are_its_parameters() -> None:
    docstring = "A point.\n\n    Attributes:\n        x: Across.\n\n    >>> 1\n    1\n    "
    source = f'@dataclass\nclass Point:\n    """{docstring}"""\n\n'
    assert check(source + "    x: float\n") == []
    assert check(source + "    x: float\n    y: float\n") == ["Args do not name y"]
