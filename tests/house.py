"""What the house tests look at: the files of the repository and the modules of its two packages."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = {"facekd": "facekd", "cli": "facekd_cli", "recipes": "facekd_cli.recipes"}
"""Folder in the checkout -> name it is installed under."""

SKIPPED_FOLDERS = {".git", ".venv", "__pycache__", "build", "dist", "runs", "demo"}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of facekd and facekd_cli, as installed."""
    for folder, package in INSTALLED.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def tracked_files() -> list[Path]:
    """The files git knows; without git, every file outside the folders that hold products."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listing = ""
    files = [ROOT / name for name in listing.split("\0") if name]
    if not files:
        found = (path for path in ROOT.rglob("*") if path.is_file())
        files = [path for path in found if not SKIPPED_FOLDERS.intersection(path.relative_to(ROOT).parts)]
    return sorted(path for path in files if path.is_file())


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines of a function that are neither docstring, blank, nor comment."""
    told: set[int] = set()
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        told = set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    numbers = range(function.lineno, (function.end_lineno or function.lineno) + 1)
    texts = (lines[number - 1].strip() for number in numbers if number not in told)
    return sum(1 for text in texts if text and not text.startswith("#"))
