"""What no file may say, and how long a module may be.

The words looked for are put together here from pieces, so that this file does not hold them.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house import ROOT, code_lines, modules, tracked_files

MODULE_LINES = 300
FUNCTION_LINES = 50
REASON = "Reason for length:"

FOREIGN = {
    r"(?<![\w.])/wo" + r"rk/": "a path of somebody's machine",
    r"(?<![\w.])/tm" + r"p/": "a path of somebody's machine",
    r"(?<![\w.])/ro" + r"ot/": "a path of somebody's machine",
    r"(?<![\w.])/(?:ho" + r"me|Us" + r"ers)/\w": "a path of somebody's machine",
    r"[A-Z]:\\Us" + r"ers\\": "a path of somebody's machine",
    "sub-?" + "agent": "no word of the product",
    "work" + "place": "no word of the product",
    r"\b(?:this|my|our|another|previous|earlier|next|last) ses" + "sion": "no word of the product",
    "clau" + "de": "no word of the product",
    "anthro" + "pic": "no word of the product",
    "shared/" + "reference": "a folder outside the repository",
    r"\b(?:meth" + r"ods|fi" + r"eld|relia" + r"bility)\.md": "a file outside the repository",
    r"\bcontract" + r"\.md": "a file outside the repository",
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): reason for pattern, reason in FOREIGN.items()}


def foreign_words(text: str) -> list[str]:
    """Every forbidden word as ``line: word: why``."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, reason in PATTERNS.items():
            if match := pattern.search(line):
                found.append(f"{number}: {match[0]!r} is {reason}")
    return found


def text_of(path: Path) -> str:
    """The text of a file; nothing for a binary one."""
    data = path.read_bytes()
    if b"\0" in data:
        return ""
    return data.decode("utf-8", errors="replace")


def too_long(source: str) -> list[str]:
    """Modules and functions over the house's length that give no reason, as ``line: what``."""
    tree = ast.parse(source)
    lines = source.splitlines()
    docstring = ast.get_docstring(tree) or ""
    if any(line.startswith(REASON) and line.removeprefix(REASON).strip() for line in docstring.splitlines()):
        return []
    found = []
    if len(lines) > MODULE_LINES:
        found.append(f"1: the module has {len(lines)} lines, more than {MODULE_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = code_lines(node, lines)
            if length > FUNCTION_LINES:
                found.append(f"{node.lineno}: {node.name} has {length} lines of code, more than {FUNCTION_LINES}")
    advice = f"split it, or write a line '{REASON} ...' into the module's docstring"
    return [f"{problem}: {advice}" for problem in found]


def test_no_file_says_a_foreign_word() -> None:
    files = tracked_files()
    assert ROOT / "setup.cfg" in files
    found = [f"{path.relative_to(ROOT)}:{problem}" for path in files for problem in foreign_words(text_of(path))]
    assert not found, "\n" + "\n".join(found)


def test_no_module_or_function_is_long_without_a_reason() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{problem}"
        for _, path in modules()
        for problem in too_long(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "see /wo" + "rk/main",
        "Path('/tm" + "p/x')",
        "/ro" + "ot/.cache",
        "/ho" + "me/someone",
        r"C:\Us" + r"ers\me",
        "the Sub" + "agent did",
        "made in this ses" + "sion",
        "meth" + "ods.md 3.2",
        "Clau" + "de",
    ],
)
def test_a_forbidden_word_is_found(line: str) -> None:
    assert len(foreign_words("fine\n" + line)) == 1
    assert foreign_words("fine\n" + line)[0].startswith("2: ")


@pytest.mark.parametrize(
    "line",
    [
        "net" + "work/main",
        "tmp_path / 'x'",
        '@pytest.fixture(scope="ses' + 'sion")',
        "onnxruntime.InferenceSes" + "sion",
        "src/ho" + "me/page",
        "https://example.org/ro" + "ot/x",
        "/dev/shm",
    ],
)
def test_an_ordinary_word_passes(line: str) -> None:
    assert foreign_words(line) == []


def function_of(lines: int, docstring: str = "") -> str:
    body = [f"    x{number} = {number}" for number in range(lines - 1)]
    return "\n".join(["def f():", *([f'    """{docstring}"""'] if docstring else []), *body, ""])


def test_length_is_counted_in_lines_of_code() -> None:
    assert too_long(function_of(50)) == []
    assert too_long(function_of(50, "A\n\n    long\n    story.\n    ")) == []
    assert too_long(function_of(50) + "    # told\n\n    # again\n") == []
    (problem,) = too_long(function_of(51))
    assert problem.startswith("1: f has 51 lines of code")


def test_a_long_module_is_found_unless_it_gives_a_reason() -> None:
    long = "x = 1\n" * 300
    assert too_long(long) == []
    assert too_long(long + "y = 1\n")[0].startswith("1: the module has 301 lines")
    assert too_long(f'"""Tables.\n\n{REASON} one table.\n"""\n' + long) == []
    assert too_long(f'"""Tables.\n\n{REASON}\n"""\n' + long) != []
