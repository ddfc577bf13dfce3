"""Every test states something that could be false: by ``assert``, ``pytest.raises``, or a helper that does."""

from __future__ import annotations

import ast

import pytest
from house import ROOT

PROVING = ("pytest.raises", "pytest.warns", "pytest.fail", "np.testing.", "torch.testing.")
"""Calls that fail a test, by how they begin."""


def called(function: ast.AST) -> set[str]:
    """Dotted names of everything a function calls."""
    return {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}


def proves(function: ast.AST) -> bool:
    """Whether a function itself may fail a test."""
    if any(isinstance(node, ast.Assert) for node in ast.walk(function)):
        return True
    return any(name.startswith(PROVING) for name in called(function))


def empty_tests(source: str) -> list[str]:
    """Tests of a module that state nothing, as ``line: name``; helpers of the same module count for who calls them."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    proving = {function.name for function in functions if proves(function)}
    while more := {f.name for f in functions if f.name not in proving and called(f) & proving}:
        proving |= more
    return [f"{f.lineno}: {f.name}" for f in functions if f.name.startswith("test_") and f.name not in proving]


def test_every_test_states_something() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(files) > 30
    found = [
        f"{path.relative_to(ROOT)}:{problem}"
        for path in files
        for problem in empty_tests(path.read_text(encoding="utf-8"))
    ]
    assert not found, "tests that cannot fail:\n" + "\n".join(found)


HELPER = "def refused(x):\n    assert x\ndef twice(x):\n    refused(x)\n"


@pytest.mark.parametrize(
    "body",
    ["f()", "x = 1", "for x in y:\n        f(x)", "with suppress(E):\n        f()", "'assert x'", "refuse(x)"],
)
def test_a_test_that_states_nothing_is_found(body: str) -> None:
    assert empty_tests(f"{HELPER}def test_a():\n    {body}\n") == ["5: test_a"]


@pytest.mark.parametrize(
    "body",
    [
        "assert x",
        "with pytest.raises(E, match='x'):\n        f()",
        "np.testing.assert_allclose(a, b)",
        "torch.testing.assert_close(a, b)",
        "refused(x)",
        "twice(x)",
    ],
)
def test_a_test_that_states_something_passes(body: str) -> None:
    assert empty_tests(f"{HELPER}def test_a():\n    {body}\n") == []
