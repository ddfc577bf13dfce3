"""Teacher embeddings of every image and its mirror, computed once, kept memory-mapped on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facekd.errors import CheckpointError
from facekd.files import disk_errors, file_digest, locked, value_digest, write_json

VIEWS = 2  # the image as it is, and its mirror
BLOCK = 512

Embed = Callable[[int, int], np.ndarray]
"""Embeddings of images ``start`` to ``stop``, float32 ``(stop - start, VIEWS, dim)``."""


def cache_key(**identity: str) -> str:
    """The folder name under which embeddings made from these digests are kept.

    Example:
        >>> cache_key(teacher="a", data="b") != cache_key(teacher="a", data="c")
        True
    """
    return value_digest({"layout": 1, **identity})[:24]


def cache_bytes(count: int, dim: int) -> int:
    """Disk a cache needs, in bytes.

    Example:
        >>> cache_bytes(1000, 512)
        4096000
    """
    return count * VIEWS * dim * 4


def open_cache(
    root: Path,
    key: str,
    *,
    count: int,
    dim: int,
    embed: Embed,
    report: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """The cached embeddings under ``root / key``, computing what is missing.

    Rows are written in blocks; the number of finished rows is recorded after each, so a run that was cut goes on
    where it stopped. When all are there the file's SHA-256 is recorded, and checked at every later opening.

    Args:
        root: Folder of caches; made when absent.
        key: From :func:`cache_key`.
        count: Images in the data set.
        dim: Width of one embedding.
        embed: Called for each block of images that is missing.
        report: Called with the rows done and the rows in all.

    Returns:
        Read-only float32 array ``(count, VIEWS, dim)``, memory-mapped.

    Raises:
        CheckpointError: The finished file no longer has its recorded digest.
        DeviceError: The disk refused.
        UsageError: Another process is filling this cache.
    """
    folder = root / key
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file, shape = folder / "embeddings.f32", (count, VIEWS, dim)
    with locked(folder, "filling the teacher cache"):
        record = _read_record(folder, count, dim)
        if "sha256" not in record:
            _fill(folder, file, shape, record, embed, report)
        elif not file.is_file() or file_digest(file) != record["sha256"]:
            raise CheckpointError(str(file), "is not the file that was written (digest differs)", f"remove {folder}")
    return np.memmap(file, np.float32, "r", shape=shape)


def _read_record(folder: Path, count: int, dim: int) -> dict:
    fresh = {"count": count, "views": VIEWS, "dim": dim, "done": 0}
    path = folder / "cache.json"
    if not path.exists():
        return fresh
    try:
        record = json.loads(path.read_text())
        same = all(record[name] == fresh[name] for name in ("count", "views", "dim"))
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(str(path), "is not a cache record", f"remove {folder}") from None
    if not same:
        held = f"holds {record['count']} x {record['dim']}, not {count} x {dim}"
        raise CheckpointError(str(path), held, f"remove {folder}")
    return record


def _fill(folder: Path, file: Path, shape: tuple, record: dict, embed: Embed, report: Callable | None) -> None:
    row = 4 * math.prod(shape[1:])
    if file.exists() and file.stat().st_size < record["done"] * row:
        record["done"] = 0
    with disk_errors(file), open(file, "r+b" if file.exists() else "wb") as stream:
        stream.truncate(record["done"] * row)
        stream.seek(0, os.SEEK_END)
        for start in range(record["done"], shape[0], BLOCK):
            stop = min(start + BLOCK, shape[0])
            stream.write(np.ascontiguousarray(embed(start, stop), np.float32).data)
            stream.flush()
            os.fsync(stream.fileno())
            record["done"] = stop
            write_json(folder / "cache.json", record)
            if report:
                report(stop, shape[0])
    write_json(folder / "cache.json", {**record, "sha256": file_digest(file)})
