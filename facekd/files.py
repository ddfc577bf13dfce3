"""Files that are whole or absent: atomic writes, digests, and a lock against a second writer."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Hold ``folder`` for this process; a lock whose process is gone is taken over.

    Args:
        folder: An existing folder.
        doing: What the holder does, for the message the second process gets.

    Raises:
        UsageError: Another living process holds it.
    """
    path = folder / ".lock"
    mine = str(os.getpid())
    while True:
        try:
            with disk_errors(path):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            break
        except DeviceError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
        holder = path.read_text(errors="replace").strip() if path.exists() else ""
        if holder.isdigit() and holder != mine and _alive(int(holder)):
            raise UsageError(str(folder), f"process {holder} is {doing} here", "wait for it, or write to another place")
        path.unlink(missing_ok=True)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(mine)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
