"""Writing tar shards as webdataset reads them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from facekd.data.classes import CLASSES_NAME, classes_text
from facekd.data.images import check_header, shown, sniff
from facekd.errors import InputError, UsageError
from facekd.files import new_folder


def write_tar_shards(
    folder: Path, samples: Iterable[tuple[int, bytes]], names: Sequence[str], shard_size: int = 10_000
) -> int:
    """Write images as ``faces-NNNNNN.tar`` with members ``KEY.jpg`` and ``KEY.cls``, and ``classes.txt`` beside them.

    The same samples make the same bytes: members bear no time, owner or group.

    Args:
        folder: Does not exist or is empty; it appears whole.
        samples: Label and encoded image of each.
        names: Name of each label.
        shard_size: Images in a shard; the last may hold fewer.

    Returns:
        The number of images.

    Raises:
        UsageError: ``folder`` is there and not empty, or a shard size below 1.
        InputError: No images, a label without a name, or a name that cannot be stored.
        DataError: A sample is no image.
        DeviceError: The disk refuses. In every case nothing is left behind.
    """
    if shard_size < 1:
        raise UsageError("shard size", f"{shard_size} is too few", "take 1 or more")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(shown(folder), "exists", "choose another folder, or remove it")
    text, count, rest = classes_text(names), 0, iter(samples)
    with new_folder(folder) as partial:
        while shard := list(islice(rest, shard_size)):
            with open(partial / f"faces-{count // shard_size:06d}.tar", "wb") as stream:
                with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                    for number, (label, image) in enumerate(shard, count):
                        _add(archive, number, label, image, len(names))
                stream.flush()
                os.fsync(stream.fileno())
            count += len(shard)
        if not count:
            raise InputError(shown(folder), "no images to write")
        (partial / CLASSES_NAME).write_bytes(text)
    return count


def _add(archive: tarfile.TarFile, number: int, label: int, image: bytes, classes: int) -> None:
    where = f"image {number}"
    check_header(image, where)
    if not 0 <= label < classes:
        raise InputError(where, f"label {label} has no name", f"there are {classes} names")
    kind = "jpg" if sniff(image) == "jpeg" else sniff(image)
    for suffix, data in ((kind, image), ("cls", str(label).encode())):
        entry = tarfile.TarInfo(f"{number:09d}.{suffix}")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
