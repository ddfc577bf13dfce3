"""Unpacks sets of images into plain files: a folder of identity folders, or images and a list of pairs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from facekd.data.file_names import Unused, image_file_name, safe_name, safe_names
from facekd.data.images import decode, shown
from facekd.data.verification import VerificationSet
from facekd.engine.resumable import GrowingFile, Watched, move, partial_work
from facekd.engine.sets.image_sets import ImageSet
from facekd.engine.sets.packing import CONTENT, IDENTITIES, PAIRS, Recoding, job_of, known_labels
from facekd.errors import InputError
from facekd.files import write_atomic


def convert_identities(images: ImageSet, out: Path, watched: Watched) -> int:
    """Write images with identities as ``OUT/IDENTITY/FILE`` and a list of them, ``OUT/identities.csv``.

    Files keep their names and bytes, and get the suffix of their content. Names that not every disk takes are replaced;
    folders sort in the order of the labels, so that both the folder and the list give every identity its label.

    Args:
        images: The set; its labels are known.
        out: The folder to make or replace.
        watched: Progress and stopping.

    Returns:
        The number of identities whose folder is not called as they are.

    Raises:
        DataError: An image does not decode.
        UsageError: Another job's unfinished work is in the way.
        DeviceError: The disk refuses.
    """
    labels = known_labels(images)
    folders = safe_names(images.identities, taken=[IDENTITIES, PAIRS])
    listed = [name if _storable(name) else folder for name, folder in zip(images.identities, folders, strict=True)]
    if any(first >= second for first, second in zip(listed, listed[1:], strict=False)):
        listed = folders
    job = job_of("convert", images.path, images.digest, Recoding(), {})
    with partial_work(out, job) as partial, partial.open(f"{CONTENT}/{IDENTITIES}") as rows:
        if not rows.size:
            rows.write(_row("path", "identity"))
        files = _Files(partial.folder / CONTENT, (row[0] for row in _rows(rows)))

        def step(index: int) -> None:
            data = images.encoded(index)
            decode(data, f"{shown(images.path)}: {shown(images.name(index))}")
            name = image_file_name(_file_name(images, index), data)
            rows.write(_row(files.write(f"{folders[labels[index]]}/{name}", data), listed[labels[index]]))

        partial.work(images.count, step, [rows], watched, phase="convert", loose=True)
        rows.sync()
        move(partial.folder / CONTENT, out)
    return sum(name != folder for name, folder in zip(images.identities, folders, strict=True))


def convert_pairs(source: Path, found: VerificationSet, out: Path, watched: Watched) -> int:
    """Write a verification set as image files and ``OUT/pairs.csv`` with the columns ``path1, path2, label, fold``.

    Images of a ``.bin`` are called by the number of the record they are met in first. The column ``fold`` is left out
    where there is one fold only.

    Args:
        source: Where the set is.
        found: The set.
        out: The folder to make or replace.
        watched: Progress and stopping.

    Returns:
        The number of pairs.

    Raises:
        DataError: An image does not decode.
        InputError: A pair is labelled both ways, which a list of pairs cannot hold.
        UsageError: Another job's unfinished work is in the way.
        DeviceError: The disk refuses.
    """
    _refuse_both_ways(source, found)
    job = job_of("convert", source, found.digest, Recoding(), {})
    with partial_work(out, job) as partial, partial.open("paths.csv") as rows:
        files = _Files(partial.folder / CONTENT, (row[0] for row in _rows(rows)))

        def step(index: int) -> None:
            name, data = found.images.sample_name(index), found.images.encoded(index)
            decode(data, f"{shown(source)}: {shown(name)}")
            path = f"images/{int(name):06d}" if source.suffix.lower() == ".bin" else name
            *folders, last = PurePosixPath(path).parts
            rows.write(_row(files.write("/".join([*map(safe_name, folders), image_file_name(last, data)]), data)))

        partial.work(len(found.images), step, [rows], watched, phase="convert", loose=True)
        paths = [row[0] for row in _rows(rows)]
        write_atomic(partial.folder / CONTENT / PAIRS, lambda path: path.write_bytes(_pairs(found, paths)))
        move(partial.folder / CONTENT, out)
    return len(found.pairs)


class _Files:
    """Writes images below a folder, each under a path of its own.

    Args:
        folder: Made when it does not exist.
        written: Paths that earlier work has used.
    """

    def __init__(self, folder: Path, written: Iterable[str]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._unused = folder, Unused()
        for path in (IDENTITIES, PAIRS, *written):
            self._unused(path)

    def write(self, path: str, data: bytes) -> str:
        """Write a file and answer the path it got."""
        found = self._unused(path)
        target = self._folder / found
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return found


def _file_name(images: ImageSet, index: int) -> str:
    """What the file of an image is called: as it was, or its key in a pack."""
    name = images.name(index).rpartition("/")[2]
    key = name.rpartition(":")[2]
    return f"{int(key):09d}" if images.format == "record" and key.isdecimal() else name


def _storable(name: str) -> bool:
    return name == name.strip() and not any(0xD800 <= ord(c) < 0xE000 or c == "\0" for c in name)


def _row(*fields: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode()


def _rows(file: GrowingFile) -> Iterator[list[str]]:
    file.sync()
    with open(file.path, newline="", encoding="utf-8") as stream:
        yield from csv.reader(stream)


def _pairs(found: VerificationSet, paths: Sequence[str]) -> bytes:
    folded = found.folds.max() > 0
    rows = [_row("path1", "path2", "label", *(["fold"] if folded else []))]
    for (first, second), genuine, fold in zip(found.pairs.tolist(), found.genuine, found.folds, strict=True):
        rows.append(_row(paths[first], paths[second], str(int(genuine)), *([str(fold)] if folded else [])))
    return b"".join(rows)


def _refuse_both_ways(source: Path, found: VerificationSet) -> None:
    seen: dict[tuple[int, int], bool] = {}
    for pair, ((first, second), genuine) in enumerate(zip(found.pairs.tolist(), found.genuine.tolist(), strict=True)):
        if seen.setdefault((min(first, second), max(first, second)), genuine) != genuine:
            fix = "a list of pairs cannot hold that"
            raise InputError(f"{shown(source)}: pair {pair}", "these images are an earlier pair of the other kind", fix)
