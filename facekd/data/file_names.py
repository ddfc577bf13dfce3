"""Names for files that any disk takes, made from names that strangers chose."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from facekd.data.image_headers import sniff

MOST_BYTES = 100
SUFFIXES = {"jpeg": (".jpg", ".jpeg"), "png": (".png",), "bmp": (".bmp",), "webp": (".webp",)}
"""Kind of image, as `image_headers.sniff` tells it -> the suffixes it may have, the usual one first."""

_FORBIDDEN = '<>:"/\\|?*'
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def safe_name(text: str) -> str:
    """The name itself where every disk takes it; otherwise one made from it, with a mark that keeps it apart.

    Example:
        >>> safe_name("Aaron_Eckhart"), safe_name("../a"), safe_name("con"), safe_name("")
        ('Aaron_Eckhart', '_._a-61b4c98b', '_con-1143da2b', '_-e3b0c442')
    """
    plain = "".join(c if c.isprintable() and c not in _FORBIDDEN else "_" for c in text)
    plain = plain.encode("utf-8", "replace")[:MOST_BYTES].decode("utf-8", "ignore").strip().rstrip(".")
    if plain.startswith("."):
        plain = f"_{plain[1:]}"
    if not plain or _RESERVED.fullmatch(plain):
        plain = f"_{plain}"
    return plain if plain == text else f"{plain}-{_mark(text)}"


def safe_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Safe names that differ in more than case and sort as the given ones are ordered.

    A folder of identities is read in sorted order, so label k stays label k.

    Args:
        names: Distinct names.
        taken: Names that are spoken for.

    Example:
        >>> safe_names(["ann", "bob"]), safe_names(["2", "10"]), safe_names(["bob", "ann"])
        (['ann', 'bob'], ['02', '10'], ['0-bob', '1-ann'])
    """
    width = max(map(len, names), default=0)
    padded = [name.zfill(width) for name in names]
    digits = len(str(max(0, len(names) - 1)))
    numbered = [f"{place:0{digits}d}-{safe_name(name)}" for place, name in enumerate(names)]
    candidates = [_apart(names, taken)]
    if all(re.fullmatch("[0-9]+", name) for name in names):
        candidates.append(_apart(padded, taken))
    return next((found for found in candidates if found == sorted(found)), numbered)


def image_file_name(name: str, data: bytes) -> str:
    """A safe name for an image file, with the suffix its content calls for.

    Example:
        >>> png = b"\\x89PNG\\r\\n\\x1a\\n"
        >>> image_file_name("a.png", png), image_file_name("a.jpg", png), image_file_name("17", png)
        ('a.png', 'a.png', '17.png')
        >>> image_file_name("a:b.jpg", png)
        'a_b-6783a31e.png'
    """
    allowed = SUFFIXES.get(sniff(data) or "", ("",))
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in allowed and safe_name(name) == name:
        return name
    known = any(suffix.lower() in group for group in SUFFIXES.values())
    stem = name.removesuffix(suffix) if known else name
    return safe_name(stem) + (suffix if suffix.lower() in allowed else allowed[0])


class Unused:
    """Hands out every path once: one that comes again, in whatever case, gets a number.

    Example:
        >>> unused = Unused()
        >>> unused("ann/1.jpg"), unused("ann/1.JPG"), unused("bob/1.jpg")
        ('ann/1.jpg', 'ann/1-2.JPG', 'bob/1.jpg')
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, path: str) -> str:
        found, number = path, 2
        while found.casefold() in self._seen:
            pure = PurePosixPath(path)
            found = str(pure.with_name(f"{pure.stem}-{number}{pure.suffix}"))
            number += 1
        self._seen.add(found.casefold())
        return found


def _apart(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    seen = {name.casefold() for name in taken}
    found = []
    for name in names:
        safe = safe_name(name)
        if safe.casefold() in seen:
            safe = f"{safe}-{_mark(name)}"
        seen.add(safe.casefold())
        found.append(safe)
    return found


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
