"""Tar shards written by the standard library, member by member: what packing and reading are held against."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from facekd.data.classes import CLASSES_NAME, classes_text
from facekd.data.image_headers import sniff


def write_tar_shards(
    folder: Path, samples: Iterable[tuple[int, bytes]], names: Sequence[str], shard_size: int = 10_000
) -> None:
    """``faces-NNNNNN.tar`` with members ``KEY.jpg`` and ``KEY.cls``, and ``classes.txt`` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rest, shard = iter(enumerate(samples)), 0
    while group := list(islice(rest, shard_size)):
        with tarfile.open(folder / f"faces-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, (label, image) in group:
                kind = "jpg" if sniff(image) == "jpeg" else sniff(image)
                for suffix, data in ((kind, image), ("cls", str(label).encode())):
                    entry = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        shard += 1
    (folder / CLASSES_NAME).write_bytes(classes_text(names))
