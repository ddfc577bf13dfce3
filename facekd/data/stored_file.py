"""Bytes of a large file by position, from any process: forked, spawned or this one."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facekd.data.images import shown
from facekd.errors import DataError, InputError

SNIFFED = 512
"""Bytes that :func:`container` wants to see."""

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
_CONTAINERS = {
    (0, b"PK\x03\x04"): "zip",
    (0, b"7z\xbc\xaf\x27\x1c"): "7-zip",
    (0, b"Rar!"): "rar",
    (257, b"ustar"): "tar",
    (16, b"\xde\xc0\xef\xbe"): "LMDB",
}


def compression(head: bytes) -> str | None:
    """The compression that the first bytes of a file are of, if one.

    Example:
        >>> compression(b"BZh91AY"), compression(b"plain")
        ('bzip2', None)
    """
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)


def container(head: bytes) -> str | None:
    """The archive, database or compression that the first `SNIFFED` bytes of a file are of, if one.

    Example:
        >>> container(b"PK\\x03\\x04 and more"), container(b"plain")
        ('zip', None)
    """
    named = (name for (at, magic), name in _CONTAINERS.items() if head[at : at + len(magic)] == magic)
    return compression(head) or next(named, None)


class StoredFile:
    """A file read by position, which no two readers share, so that workers do not disturb each other.

    A pickled one holds the path alone and opens the file again where it is first read; a file that changed in between
    is refused. Reading by position instead of mapping leaves the pages to the system's cache, and a file that shrinks
    under the reader is an error with a name, not a bus error.

    Args:
        path: A regular file.

    Raises:
        InputError: Missing, unreadable, or no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise InputError(shown(path), "not a regular file")
            self._descriptor: int | None = self._open()
        except FileNotFoundError:
            raise InputError(shown(path), "no such file", "check the path") from None
        except OSError as error:
            raise InputError(shown(path), f"cannot be read: {error.strerror}") from None
        self._stamp = self._stamp_of(self._descriptor)
        self.size = self._stamp[0]

    def read(self, offset: int, count: int) -> bytes:
        """At most ``count`` bytes from ``offset`` on, fewer only where the file ends.

        Raises:
            DataError: The file is gone, was replaced since it was opened first, or does not let itself be read.
        """
        try:
            descriptor = self._opened() if self._descriptor is None else self._descriptor
            data = os.pread(descriptor, count, offset)
            while data and len(data) < count and offset + len(data) < self.size:
                more = os.pread(descriptor, count - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise DataError(shown(self.path), f"cannot be read: {error.strerror}") from None
        return data

    def read_many(self, offsets: Sequence[int], count: int) -> np.ndarray:
        """The ``count`` bytes from each of many offsets on, zeros beyond the end: uint8 (offsets, count).

        Raises:
            DataError: As :meth:`read`.
        """
        try:
            descriptor = self._opened()
            found = [os.pread(descriptor, count, offset) for offset in offsets]
        except OSError as error:
            raise DataError(shown(self.path), f"cannot be read: {error.strerror}") from None
        joined = b"".join(found)
        if len(joined) < count * len(offsets):
            joined = b"".join(self.read(offset, count).ljust(count, b"\0") for offset in offsets)
        return np.frombuffer(joined, np.uint8).reshape(-1, count)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "size": self.size, "_stamp": self._stamp, "_descriptor": None}

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = self._open()
            if self._stamp_of(self._descriptor) != self._stamp:
                raise DataError(shown(self.path), "changed since it was opened", "start again")
        return self._descriptor

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    @staticmethod
    def _stamp_of(descriptor: int) -> tuple[int, int]:
        status = os.fstat(descriptor)
        return status.st_size, status.st_mtime_ns
