"""Embeddings of every view of every image, computed once, kept memory-mapped on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facekd.errors import CheckpointError
from facekd.files import disk_errors, file_digest, locked, remove_unfinished, value_digest, write_json

RECORD = "cache.json"
BLOCK = 512
"""Images after which what is done is made durable."""

Embed = Callable[[int, int], np.ndarray]
"""Embeddings of images ``start`` to ``stop``, float32 ``(stop - start, views, dim)``."""


def cache_key(**identity: str) -> str:
    """The folder name under which embeddings made from these digests are kept.

    Example:
        >>> cache_key(teacher="a", data="b") != cache_key(teacher="a", data="c")
        True
    """
    return value_digest({"layout": 2, **identity})[:24]


def cache_bytes(count: int, views: int, dim: int) -> int:
    """Disk a cache needs, in bytes.

    Example:
        >>> cache_bytes(1000, 2, 512)
        4096000
    """
    return count * views * dim * 4


def open_cache(
    root: Path,
    key: str,
    *,
    shape: tuple[int, int, int],
    embed: Embed,
    report: Callable[[int, int], None] | None = None,
    multiple: int = 1,
    renew: bool = False,
) -> np.ndarray:
    """The cached embeddings under ``root / key``, computing what is missing.

    Rows are written in blocks; the number of finished rows is recorded after each, so a run that was cut goes on
    where it stopped. When all are there the file's SHA-256 is recorded, and checked at every later opening, which
    several processes may do at once.

    Args:
        root: Folder of caches; made when absent.
        key: From :func:`cache_key`.
        shape: Images in the data set, embeddings of each, width of one embedding.
        embed: Called for each block of images that is missing.
        report: Called with the rows done and the rows in all.
        multiple: A block is at least :data:`BLOCK` images, and a multiple of this.
        renew: Compute a damaged cache anew rather than refuse it.

    Returns:
        Read-only float32 array ``(count, views, dim)``, memory-mapped.

    Raises:
        CheckpointError: The finished file no longer has its recorded digest, and is not to be renewed.
        DeviceError: The disk refused.
        UsageError: Another process is filling this cache.
    """
    folder = root / key
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / "embeddings.f32"
    try:
        record = _whole_record(folder, file, shape)
    except CheckpointError:
        if not renew:
            raise
        with locked(folder, "storing embeddings"), disk_errors(folder):
            (folder / RECORD).unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        record = {}
    if "sha256" not in record:
        with locked(folder, "storing embeddings"):
            record = _read_record(folder, shape)
            with disk_errors(folder):
                remove_unfinished(folder)
            if "sha256" not in record:
                _fill(folder, file, shape, record, embed, report, multiple * math.ceil(BLOCK / multiple))
    return np.memmap(file, np.float32, "r", shape=shape)


def _whole_record(folder: Path, file: Path, shape: tuple[int, int, int]) -> dict:
    """What is recorded of a cache, of which the file, once finished, must be the one that was written."""
    record = _read_record(folder, shape)
    if "sha256" in record and (not file.is_file() or file_digest(file) != record["sha256"]):
        raise CheckpointError(str(file), "is not the file that was written (digest differs)", f"remove {folder}")
    return record


def _read_record(folder: Path, shape: tuple[int, int, int]) -> dict:
    fresh: dict = {"shape": list(shape), "done": 0}
    path = folder / RECORD
    if not path.exists():
        return fresh
    try:
        record = json.loads(path.read_text())
        held, done, digest = record["shape"], record["done"], record.get("sha256", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(str(path), "is not a cache record", f"remove {folder}") from None
    if held != fresh["shape"]:
        raise CheckpointError(str(path), f"holds {held}, not {fresh['shape']}", f"remove {folder}")
    if type(done) is not int or not 0 <= done <= shape[0] or not isinstance(digest, str):
        raise CheckpointError(str(path), "is not a cache record", f"remove {folder}")
    return record


def _fill(
    folder: Path, file: Path, shape: tuple, record: dict, embed: Embed, report: Callable | None, block: int
) -> None:
    row = 4 * math.prod(shape[1:])
    if file.exists() and file.stat().st_size < record["done"] * row:
        record["done"] = 0
    with disk_errors(file), open(file, "r+b" if file.exists() else "wb") as stream:
        stream.truncate(record["done"] * row)
        stream.seek(0, os.SEEK_END)
        for start in range(record["done"], shape[0], block):
            stop = min(start + block, shape[0])
            stream.write(np.ascontiguousarray(embed(start, stop), np.float32).data)
            stream.flush()
            os.fsync(stream.fileno())
            record["done"] = stop
            write_json(folder / RECORD, record)
            if report:
                report(stop, shape[0])
    write_json(folder / RECORD, {**record, "sha256": file_digest(file)})
