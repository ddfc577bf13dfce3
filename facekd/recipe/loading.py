"""Recipe files to recipes, with every problem told at once and by line."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from facekd.errors import RecipeError
from facekd.recipe.base import REQUIRED, Location, Problem
from facekd.recipe.explain import shown, validate
from facekd.recipe.overrides import Overridden, apply_overrides
from facekd.recipe.schema import Recipe
from facekd.recipe.strict_yaml import Document, YamlError, read_yaml

MOST_BYTES = 1_000_000


def _refusal(where: object, what: str, fix: str = "") -> RecipeError:
    return RecipeError([f"{where}: {what}" + (f" ({fix})" if fix else "")])


def _read_bytes(path: Path) -> bytes:
    """The bytes of a regular file, never waiting for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise _refusal(path, "no such file", f"the working directory is {Path.cwd()}") from None
    except (OSError, ValueError) as error:
        raise _refusal(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise _refusal(path, "a folder", "give a .yaml file")
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, "not a regular file", "give a .yaml file")
        if status.st_size > MOST_BYTES:
            raise _refusal(path, f"{status.st_size} bytes", f"a recipe has at most {MOST_BYTES}")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(MOST_BYTES)
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror or error}") from None
    finally:
        os.close(descriptor)


def _read_text(path: Path) -> str:
    data = _read_bytes(path)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        what = f"byte {error.start} (0x{data[error.start]:02X}) is not UTF-8"
        raise _refusal(path, what, "save the file as UTF-8") from None


def _marked(value: object, location: Location = ()) -> Iterator[Location]:
    """Where a document leaves a value to its user."""
    if value == REQUIRED:
        yield location
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _marked(item, (*location, key))


def required_keys(recipe: Recipe) -> list[str]:
    """The keys a recipe leaves to its user, as dotted paths.

    Example:
        >>> from facekd.recipe import Recipe
        >>> draft = {"name": "a", "student": {"backbone": "b"}, "data": {"source": "folder", "path": "REQUIRED"},
        ...          "losses": [{"name": "margin_softmax"}], "optimizer": {"learning_rate": 1}, "train": {"epochs": 1}}
        >>> required_keys(Recipe.model_validate(draft))
        ['data.path']
    """
    return [".".join(map(str, location)) for location in _marked(recipe.model_dump(mode="json"))]


def _told(where: str, problem: Problem) -> str:
    """One problem as a line: where it was written, its key unless that names it, what is wrong and how to mend it."""
    key = ".".join(map(str, problem.location))
    told = f"{where}: {problem.what}" if not key else f"{where}: {key}: {problem.what}"
    return f"{told} ({problem.fix})" if problem.fix else told


def _line_and_text(problem: Problem, path: Path, read: Document, done: Overridden) -> tuple[int, str]:
    """A line number to sort by and the line to print, for a problem of the document as overridden."""
    location = problem.location
    if location in done.origins:
        return MOST_BYTES, _told(done.origins[location], problem._replace(location=()))
    enclosing = [location[:length] for length in range(len(location), 0, -1)]
    for here in enclosing:
        if here in done.origins:
            return MOST_BYTES, _told(done.origins[here], problem)
    for here in enclosing:
        if here in read.lines:
            return read.lines[here], _told(f"{path}:{read.lines[here]}", problem)
        inside = next((origin for place, origin in done.origins.items() if place[: len(here)] == here), None)
        if inside is not None:
            return MOST_BYTES, _told(inside, problem)
    return 1, _told(f"{path}:1", problem)


def _read_document(path: Path) -> Document:
    try:
        read = read_yaml(_read_text(path))
    except YamlError as error:
        raise _refusal(f"{path}:{error.line}", error.what, error.fix) from None
    if read.value is None:
        raise _refusal(path, "the recipe is empty", "facekd recipe show NAME prints a shipped one to start from")
    if not isinstance(read.value, dict):
        raise _refusal(f"{path}:1", f"expected a mapping, got {shown(read.value)}", "write key: value lines")
    return read


def load_recipe(path: Path, overrides: Sequence[str] = (), *, allow_required: bool = False) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: A YAML file; the paths inside it are relative to the working directory.
        overrides: ``key.path=value`` each, applied in order before validation.
        allow_required: Accept values left as ``REQUIRED``; see :func:`required_keys`.

    Raises:
        RecipeError: Whatever is wrong with the file, its values or the overrides, all of it at once.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.yaml").write_text("name: a\\nstudnt: {}\\n")
        ...     try:
        ...         load_recipe(Path(folder, "a.yaml"), ["train.epochs=0"])
        ...     except RecipeError as error:
        ...         lines = [line.removeprefix(folder) for line in error.lines]
        >>> print(*lines[-2:], sep="\\n")
        /a.yaml:2: studnt: unknown key (did you mean student?)
        --set train.epochs: must be at least 1, got 0
    """
    read = _read_document(path)
    document: dict[str, Any] = read.value
    done = apply_overrides(document, overrides)
    found = [(line, _told(f"{path}:{line}", problem)) for line, problem in read.problems]
    found += [(MOST_BYTES, _told(origin, problem)) for origin, problem in done.problems]
    known = {problem.location for _, problem in read.problems}
    result = validate(document)
    problems = [] if isinstance(result, Recipe) else [p for p in result if p.location not in known]
    if not allow_required:
        for location in _marked(document):
            problems.append(Problem(location, "left open", f"give it with --set {'.'.join(map(str, location))}=..."))
    found += [_line_and_text(problem, path, read, done) for problem in problems]
    if found or not isinstance(result, Recipe):
        raise RecipeError([text for _, text in sorted(found, key=lambda item: item[0])])
    return result
