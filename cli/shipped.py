"""The recipes that come with facekd."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from facekd.errors import UsageError
from facekd.registry import near_names

SUFFIXES = (".yaml", ".yml")


def _folder() -> Path:
    return Path(str(files("facekd_cli.recipes")))


def shipped_recipes() -> dict[str, Path]:
    """Every shipped recipe: its name, ``folder/file`` without suffix, and its file.

    Example:
        >>> "quickstart/teacher" in shipped_recipes()
        True
    """
    folder = _folder()
    found = sorted(path for suffix in SUFFIXES for path in folder.rglob(f"*{suffix}"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def find_recipe(name_or_path: str) -> Path:
    """The file that a RECIPE argument means: a path that exists, or else the name of a shipped recipe.

    Raises:
        UsageError: It is neither.

    Example:
        >>> find_recipe("quickstart/teacher").name
        'teacher.yaml'
        >>> find_recipe("quickstart/techer")
        Traceback (most recent call last):
        facekd.errors.UsageError: quickstart/techer: no such recipe (did you mean quickstart/teacher?)
    """
    path = Path(name_or_path)
    shipped = shipped_recipes()
    if name_or_path in shipped and not path.is_file():
        return shipped[name_or_path]
    if path.exists() or path.suffix in SUFFIXES:
        return path
    near = near_names(name_or_path, shipped, most=1)
    fix = f"did you mean {near[0]}?" if near else "facekd recipe list shows the shipped ones"
    raise UsageError(name_or_path, "no such recipe", fix)
