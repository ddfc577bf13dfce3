"""Checksums of the images of a data set, kept in a side-car beside it.

The side-car is ASCII text. Its first line names the format; then comes a line for each image in the order of the set:
CRC-32 of the stored bytes in hex, their count, and the name, with everything but plain characters written as ``%XX``.
The last line holds the number of images and the SHA-256 of all lines before it, so a side-car that was damaged itself
is not believed. Lines are written and compared as a stream: neither images nor checksums are held all at once.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from facekd.data.images import shown
from facekd.errors import InputError

SUFFIX = ".checksums"
_FIRST = "facekd checksums 1"
_SAFE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_LINE = re.compile(r"([0-9a-f]{8}) ([0-9]{1,15}) (.*)")
_LAST = re.compile(r"end ([0-9]{1,15}) ([0-9a-f]{64})")
_DAMAGED = "is damaged or no side-car of checksums"
_FIX = "remove it, or write it again with --write"


class Checksum(NamedTuple):
    """What is remembered of one image: its name, the CRC-32 of its stored bytes and their count."""

    name: str
    crc: int
    size: int


@dataclass(frozen=True)
class Difference:
    """Names of the images that are not what they were."""

    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.new)


def side_car(path: Path) -> Path:
    """Where the checksums of a data set lie: beside a file, and under a dot-name inside a folder.

    Example:
        >>> side_car(Path("faces/train.rec")).as_posix()
        'faces/train.rec.checksums'
    """
    return path / SUFFIX if path.is_dir() else path.with_name(path.name + SUFFIX)


def checksum(name: str, data: bytes) -> Checksum:
    """The checksum of an image.

    Example:
        >>> checksum("ann/1.jpg", b"123456789")
        Checksum(name='ann/1.jpg', crc=3421780262, size=9)
    """
    return Checksum(name, zlib.crc32(data), len(data))


def write_checksums(path: Path, entries: Iterable[Checksum]) -> int:
    """Write a side-car; to make it appear whole, give a temporary path.

    Returns:
        The number of images.
    """
    digest, count = hashlib.sha256(), -1
    with open(path, "wb") as stream:
        for text in _lines(entries):
            line = f"{text}\n".encode("ascii")
            digest.update(line)
            stream.write(line)
            count += 1
        stream.write(f"end {count} {digest.hexdigest()}\n".encode("ascii"))
    return count


def read_checksums(path: Path) -> Iterator[Checksum]:
    """The entries of a side-car, which is read through once to see that it is whole before the first is given.

    Raises:
        InputError: It cannot be read, was cut short or changed, or is something else.
    """
    try:
        _require_whole(path)
    except OSError as error:
        raise InputError(shown(path), f"cannot be read: {error.strerror}") from None
    return _entries(path)


def compare(before: Iterable[Checksum], now: Iterable[Checksum]) -> Difference:
    """What changed between two states of a set, images told apart by name; the order does not count.

    Only entries whose partner has not come yet are kept, so equal orders cost no memory.

    Example:
        >>> old = [Checksum("a", 1, 9), Checksum("b", 2, 9), Checksum("c", 3, 9)]
        >>> compare(old, [Checksum("c", 3, 9), Checksum("a", 1, 8), Checksum("d", 4, 9)])
        Difference(changed=['a'], missing=['b'], new=['d'])
        >>> bool(compare(old, reversed(old)))
        False
    """
    early: dict[str, Checksum] = {}
    late: dict[str, Checksum] = {}
    changed: list[str] = []
    for old, new in zip_longest(before, now):
        for entry, own, other in ((old, early, late), (new, late, early)):
            if entry is None:
                continue
            partner = other.pop(entry.name, None)
            if partner is None:
                own[entry.name] = entry
            elif partner != entry:
                changed.append(entry.name)
    return Difference(changed, list(early), list(late))


def _lines(entries: Iterable[Checksum]) -> Iterator[str]:
    yield _FIRST
    for entry in entries:
        yield f"{entry.crc:08x} {entry.size} {quote(entry.name.encode('utf-8', 'surrogatepass'), safe=_SAFE)}"


def _require_whole(path: Path) -> None:
    digest, count, last = hashlib.sha256(), -1, b""
    with open(path, "rb") as stream:
        for line in stream:
            if last:
                digest.update(last)
                count += 1
            last = line
    found = _LAST.fullmatch(last.decode("ascii", "replace").rstrip("\n"))
    if found is None or (int(found[1]), found[2]) != (count, digest.hexdigest()):
        raise InputError(shown(path), _DAMAGED, _FIX)


def _entries(path: Path) -> Iterator[Checksum]:
    with open(path, encoding="ascii") as stream:
        if stream.readline() != f"{_FIRST}\n":
            raise InputError(shown(path), _DAMAGED, _FIX)
        for line in stream:
            found = _LINE.fullmatch(line.rstrip("\n"))
            if found is None:
                return
            yield Checksum(
                unquote_to_bytes(found[3]).decode("utf-8", "surrogatepass"), int(found[1], 16), int(found[2])
            )
