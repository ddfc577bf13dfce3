"""Text lists of images: decoding, rows with line numbers, and paths that stay inside their root."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from facekd.data.images import decode, read_bytes, shown
from facekd.errors import DataError, DeviceError, InputError

MAX_LIST_BYTES = 2**30
_DRIVE = re.compile(r"[A-Za-z]:")


def read_text(path: Path) -> tuple[str, list[str]]:
    """The text of a list, with what had to be assumed to read it.

    Args:
        path: UTF-8 with or without a byte order mark; anything else is read as Latin-1 and said so.

    Returns:
        The text and a list of warnings.

    Raises:
        InputError: Missing, unreadable, empty, larger than 1 GiB, UTF-16, or binary.
    """
    data = _list_bytes(path)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(shown(path), "is UTF-16", "save it as UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise InputError(f"{shown(path)}:{line}", "holds a NUL byte: not a text file")
    warnings = []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text, warnings = data.decode("latin-1"), [f"{shown(path)}:{line}: not UTF-8; the file was read as Latin-1"]
    if not text.strip():
        raise InputError(shown(path), "is empty")
    return text, warnings


def read_rows(path: Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """The rows of a CSV or TSV file as (line number, fields), blank lines left out, and warnings.

    The separator is a tab when the first line holds one, otherwise a comma.

    Raises:
        InputError: As ``read_text``, the quoting is broken (names the line), or no row holds anything.
    """
    text, warnings = read_text(path)
    delimiter = "\t" if "\t" in text.lstrip().split("\n", 1)[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((reader.line_num, fields))
    except csv.Error as error:
        raise InputError(f"{shown(path)}:{reader.line_num}", f"broken row: {error}", "check the quotes") from None
    if not rows:
        raise InputError(shown(path), "holds nothing but separators")
    return rows, warnings


def unsafe_path(text: str) -> str | None:
    """Why a path of a list may not be opened below a root, or None when it may.

    Example:
        >>> unsafe_path("ann/ann_1.jpg"), unsafe_path("../x"), unsafe_path("/etc/passwd")
        (None, "leads upwards with '..'", 'is absolute')
    """
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "holds a NUL character"
    if text.startswith("/"):
        return "is absolute"
    if "\\" in text:
        return "holds a backslash"
    if _DRIVE.match(text):
        return "names a drive"
    return "leads upwards with '..'" if ".." in text.split("/") else None


def relative_path(text: str, where: str) -> str:
    """A path of a list in its one spelling (``./a//b`` is ``a/b``).

    Raises:
        InputError: The path is empty, absolute, leads upwards, or holds a backslash, drive or NUL.
    """
    reason = unsafe_path(text)
    if reason:
        raise InputError(where, f"path '{shown(text)}' {reason}", "write paths relative to the image root, with '/'")
    return str(PurePosixPath(text))


def visible_entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, names with a leading dot left out.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(shown(folder), f"cannot be read: {error.strerror}") from None


class ImageRoot:
    """A folder that relative paths are looked up in and never lead out of, symbolic links included.

    Args:
        root: An existing folder; it may itself be a link.

    Raises:
        InputError: ``root`` is missing or no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(shown(root), "is not a folder" if root.exists() else "no such folder")
        self.path = str(root)
        self._real = os.path.realpath(root)
        self._inside: dict[str, bool] = {}

    def join(self, relative: str) -> Path:
        """The path to open."""
        return Path(self.path, relative)

    def require_inside(self, relative: str, where: str) -> None:
        """Refuse a link that leads out of the root.

        Raises:
            InputError: The path, with its links followed, is outside the root.
        """
        real = os.path.realpath(os.path.join(self.path, relative))
        if real != self._real and not real.startswith(self._real.rstrip(os.sep) + os.sep):
            raise InputError(where, f"'{shown(relative)}' is a link that leads out of {shown(self.path)}", "copy it in")

    def size(self, relative: str, where: str) -> int | None:
        """Bytes of the file at ``relative``, or None when there is none.

        Raises:
            InputError: It leads out of the root, loops, may not be read, or is no regular file.
        """
        path = os.path.join(self.path, relative)
        try:
            status = os.lstat(path)
            parent = os.path.dirname(relative)
            if parent not in self._inside:
                self.require_inside(parent, where)
                self._inside[parent] = True
            if stat.S_ISLNK(status.st_mode):
                status = os.stat(path)
                self.require_inside(relative, where)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(where, f"'{shown(relative)}' cannot be opened: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise InputError(where, f"'{shown(relative)}' is not a regular file")
        return status.st_size


@dataclass(frozen=True)
class FileImages:
    """Images in files below a root, by number.

    Attributes:
        root: Where the paths are looked up.
        paths: Relative to the root.
    """

    root: ImageRoot
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, index: int) -> bytes:
        """The file of image ``index``; raises `DataError` where it is gone, `DeviceError` where its whole root is."""
        try:
            return read_bytes(self.root.join(self.paths[index]))
        except DataError:
            if os.path.isdir(self.root.path):
                raise
            fix = "mount or restore it, then run the same command again, training with --resume"
            raise DeviceError(shown(self.root.path), "is gone since it was opened", fix) from None

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3); raises `DataError` where it is gone or does not decode."""
        return decode(self.encoded(index), shown(self.root.join(self.paths[index])))

    def sample_name(self, index: int) -> str:
        """Path of image ``index`` relative to the root."""
        return self.paths[index]


def refuse_missing(path: Path, missing: Sequence[tuple[int, str]], root: ImageRoot) -> None:
    """Report images that a list names and the root lacks: the first three and the count.

    Args:
        path: The list.
        missing: (line number, path tried) of each.
        root: Where they were looked for.

    Raises:
        InputError: ``missing`` is not empty.
    """
    if not missing:
        return
    first = "; ".join(f"line {line}: {shown(root.join(tried))}" for line, tried in missing[:3])
    count = "1 image is missing" if len(missing) == 1 else f"{len(missing)} images are missing"
    more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise InputError(shown(path), f"{count}: {first}{more}", "give the folder they lie in as the image root")


def _list_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(shown(path), "is a folder, not a list" if path.is_dir() else "not a regular file")
        if status.st_size > MAX_LIST_BYTES:
            raise InputError(shown(path), f"{status.st_size} bytes is too large", f"at most {MAX_LIST_BYTES}")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(shown(path), "no such file") from None
    except OSError as error:
        raise InputError(shown(path), f"cannot be read: {error.strerror}") from None
