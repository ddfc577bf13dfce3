"""Files that are whole or absent: atomic writes, digests, lines added whole, and a lock against a second writer."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from facekd.errors import DeviceError, UsageError


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "empty").write_bytes(b"")
        ...     file_digest(Path(folder, "empty"))[:8]
        'e3b0c442'
    """
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_digest(value: object) -> str:
    """SHA-256 of a JSON-like value, independent of key order.

    Example:
        >>> value_digest({"a": 1, "b": 2}) == value_digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing ``path`` into one line.

    Raises:
        DeviceError: No space, no permission, a read-only disk, or any other refusal by the system.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "free some space, then run it again (train: --resume)" if full else "choose a folder that can be written"
        raise DeviceError(str(path), f"cannot be written: {error.strerror or error}", fix) from error


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable where the system knows how."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(path: Path, write: Callable[[Path], object]) -> str:
    """Fill a temporary neighbour with ``write``, make it durable, then rename it to ``path``.

    The file at ``path`` is the old one or the new one at every instant, never a part.

    Args:
        path: The file to make or replace; its folder must exist.
        write: Called with the temporary path it must fill.

    Returns:
        SHA-256 of the new file, in hex.

    Raises:
        DeviceError: The system refused; the old file stands and the temporary one is gone.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_atomic(Path(folder, "a"), lambda p: p.write_bytes(b"hi"))
        ...     sorted(os.listdir(folder)), Path(folder, "a").read_bytes()
        (['a'], b'hi')
    """
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with disk_errors(path):
            write(temporary)
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            digest = file_digest(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def write_text(path: Path, text: str) -> str:
    """:func:`write_atomic` of UTF-8 text."""
    return write_atomic(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_json(path: Path, value: object) -> str:
    """:func:`write_atomic` of a JSON value, indented, with a final newline."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Add a line to a text file; where a killed process left half a line, it is ended first.

    Args:
        path: Made when absent.
        line: Without its end.
        durable: Whether it must be on the disk before this returns.

    Raises:
        DeviceError: The system refused.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "log").write_text("whole\\nha")
        ...     append_line(Path(folder, "log"), "next")
        ...     Path(folder, "log").read_text().split()
        ['whole', 'ha', 'next']
    """
    with disk_errors(path), open(path, "ab+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else f"\n{line}"
        stream.write(f"{line}\n".encode())
        stream.flush()
        if durable:
            os.fsync(stream.fileno())


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left of :func:`write_atomic` in a folder nobody else writes to."""
    for path in folder.glob("*.tmp.*"):
        path.unlink(missing_ok=True)


def remove_left(path: Path) -> None:
    """Remove what killed processes left of :func:`write_atomic` beside a file; those of living ones stand.

    Args:
        path: The file.

    Raises:
        DeviceError: The system refused.
    """
    with disk_errors(path):
        for left in path.parent.glob(f"{glob.escape(path.name)}.tmp.*"):
            process = left.suffix[1:]
            if process.isdecimal() and not _lives(int(process)):
                left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to ``out`` once the block ends well and removed otherwise.

    It lies at ``OUT.partial``; what a killed process left there is made anew.

    Args:
        out: Does not exist, or is an empty folder.

    Raises:
        DeviceError: The system refused; nothing is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with new_folder(Path(parent, "out")) as partial:
        ...         _ = (partial / "a").write_text("hi")
        ...     os.listdir(parent), os.listdir(Path(parent, "out"))
        (['out'], ['a'])
    """
    partial = out.with_name(f"{out.name}.partial")
    try:
        with disk_errors(out):
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir()
            yield partial
            if out.is_dir():
                out.rmdir()
            os.replace(partial, out)
            sync_folder(out.absolute().parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets go of it when the process ends, however it ends.

    Args:
        folder: An existing folder.
        doing: What the holder does, for the message the second process gets.

    Raises:
        UsageError: Another process holds it.
        DeviceError: The disk refused.
    """
    path = folder / ".lock"
    with disk_errors(path):
        stream = _taken(path)
    if stream is None:
        holder = _first_word(path)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise UsageError(str(folder), f"{who} is {doing} here", "wait for it, or write to another place")
    with stream:
        try:
            with disk_errors(path):
                stream.truncate()
                stream.write(str(os.getpid()))
                stream.flush()
            yield
        finally:
            path.unlink(missing_ok=True)


def _taken(path: Path) -> TextIO | None:
    """The lock file, open and held, or None where another process holds it."""
    while True:
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+")
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                return stream
        except BlockingIOError:
            stream.close()
            return None
        except FileNotFoundError:
            pass
        stream.close()  # who held it removed the file in between


def _first_word(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()[:20]
    except FileNotFoundError:
        return ""
