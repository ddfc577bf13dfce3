"""Names to factories, with an answer for the name that was nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from facekd.errors import UsageError

T = TypeVar("T")


def near_names(name: str, names: Iterable[str], most: int = 3) -> list[str]:
    """Up to ``most`` known names that look like ``name``, best first.

    Example:
        >>> near_names("mobilefacent", ["iresnet50", "mobilefacenet"])
        ['mobilefacenet']
    """
    known = {n.lower(): n for n in names}
    return [known[n] for n in difflib.get_close_matches(name.lower(), known, n=most, cutoff=0.5)]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A phrase naming the nearest known names, or all of them when none is near.

    Example:
        >>> did_you_mean("l3", ["l2", "cosine"])
        'did you mean l2?'
        >>> did_you_mean("zzz", ["l2", "cosine"])
        'known: cosine, l2'
    """
    names = list(names)
    near = near_names(name, names)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(names))}"


class Registry(Generic[T]):
    """A table of named things, filled at import by a decorator and never changed again.

    Args:
        kind: What the names stand for, used in messages.

    Example:
        >>> shapes = Registry("shape")
        >>> @shapes.register("dot")
        ... def dot():
        ...     return "."
        >>> shapes["dot"]()
        '.'
        >>> shapes["dto"]
        Traceback (most recent call last):
        facekd.errors.UsageError: dto: unknown shape (did you mean dot?)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a thing under ``name``; a name is given once."""

        def file(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name} is registered twice")
            self._entries[name] = entry
            return entry

        return file

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise UsageError(name, f"unknown {self.kind}", did_you_mean(name, self._entries))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
