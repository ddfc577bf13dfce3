"""Images with identities in an MXNet ``.rec``: every layout that face data sets come in.

Which records are images: where record 0 has several labels and no image, it is a header ``[N+1, ...]`` and the images
are records 1 to N; everywhere else, and where there is no index to number them by, they are the records that hold an
image. The class is the label, or the first of several. Ranges of identities are never used: a float32 holds whole
numbers only up to 16,777,216, and beyond it the header itself can be off by one, so that its neighbour is looked at.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from facekd.data.classes import named_labels
from facekd.data.identities import refuse_unusable
from facekd.data.images import decode, shown
from facekd.data.lists import visible_entries
from facekd.data.record_heads import EXACT, Heads, read_heads, unpack_image
from facekd.data.record_property import PROPERTY_NAME, compare_property
from facekd.data.recordio import RecordReader, read_index
from facekd.errors import InputError


class RecordSource:
    """The images of a ``.rec``.

    Opening reads the header of every record and no image. Images come in the order of their keys. Names are those of
    a ``classes.txt`` beside the file, otherwise the numbers of the classes that occur. The digest covers the size of
    the file and the place, length and class of every image: it changes when images are added, removed, moved or
    relabelled, and not when one is replaced by another of the same length.

    Args:
        path: The ``.rec``, or the folder that holds ``train.rec`` or one other; its ``.idx`` beside it is used where
            there is one.

    Raises:
        InputError: No RecordIO, an index that does not fit it, a damaged record, a label that is no class, or fewer
            than two identities; names file, record and byte.
    """

    def __init__(self, path: Path) -> None:
        path = find_records(Path(path))
        self._reader = RecordReader(path)
        self._file = path.name
        keys, offsets, self.warnings = _located(path, self._reader)
        heads = read_heads(self._reader, keys, offsets)
        self.warnings += _coverage(self._reader, path.with_suffix(".idx"), keys, offsets, heads.ends)
        images, told = _images(self._reader.name, keys, heads, path.with_suffix(".idx").is_file())
        self.warnings += told
        if not len(images):
            raise InputError(self._reader.name, "holds no images")
        numbers = _classes(self._reader.name, keys[images], heads.labels[images])
        self.warnings += compare_property(path.parent / PROPERTY_NAME, self._reader.name, keys[images], numbers)
        self._keys, self._offsets = keys[images], offsets[images]
        self._sizes = heads.sizes[images]
        self.names, self.labels, told = named_labels(self._reader.name, numbers, path.parent)
        self.warnings += told
        refuse_unusable(self._reader.name, self.names)
        digest = hashlib.sha256(f"{self._reader.size} {len(images)}\n".encode())
        for column in (self._offsets, heads.images[images], self.labels):
            digest.update(column.astype("<i8").tobytes())
        digest.update("\n".join(self.names).encode("utf-8", "surrogateescape"))
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored; raises `DataError` where the file was damaged or cut short since."""
        return unpack_image(self._reader.read(self._offsets.item(index), self._sizes.item(index)))

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3); raises `DataError` where it does not decode."""
        return decode(self.encoded(index), f"{self._reader.name}: record {self._keys.item(index)}")

    def sample_name(self, index: int) -> str:
        """File and key of image ``index``, as ``train.rec:17``."""
        return f"{self._file}:{self._keys[index]}"


def find_records(path: Path) -> Path:
    """The ``.rec`` that a path means.

    Args:
        path: The file, or the folder that holds ``train.rec`` or exactly one other.

    Raises:
        InputError: None or several there, or an index without its records.
    """
    if not path.is_dir():
        if path.suffix.lower() == ".idx":
            raise InputError(shown(path), "is an index, not the records", "give the .rec")
        return path
    entries = visible_entries(path)
    found = [entry for entry in entries if entry.suffix.lower() == ".rec"]
    if len(found) == 1:
        return found[0]
    if path / "train.rec" in found:
        return path / "train.rec"
    if found:
        names = ", ".join(shown(entry.name) for entry in found[:3])
        raise InputError(shown(path), f"holds {len(found)} .rec files: {names}", "name one of them")
    orphans = [entry.name for entry in entries if entry.suffix.lower() == ".idx"]
    if orphans:
        raise InputError(shown(path), f"holds {shown(orphans[0])} without its .rec", "fetch the .rec too")
    raise InputError(shown(path), "holds no .rec")


def _located(path: Path, reader: RecordReader) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Keys and offsets of all records in the order of the keys, and warnings."""
    index = path.with_suffix(".idx")
    if index.is_file():
        keys, offsets = read_index(index, reader.size)
        order = np.argsort(keys)
        return keys[order], offsets[order], []
    offsets = reader.walk()
    warning = f"{reader.name}: {shown(index.name)} is missing; {len(offsets):,} records were found by walking the file"
    return np.arange(len(offsets)), offsets, [warning]


def _coverage(reader: RecordReader, index: Path, keys: np.ndarray, offsets: np.ndarray, ends: np.ndarray) -> list[str]:
    """Refuse an index that points into records; warn of records that it leaves out."""
    order = np.argsort(offsets)
    starts, stops = offsets[order], ends[order]
    inside = np.flatnonzero(starts[1:] < stops[:-1])
    if len(inside):
        outer, inner = order[inside[0]], order[inside[0] + 1]
        what = f"record {keys[inner]}, byte {offsets[inner]}, lies within record {keys[outer]}, byte {offsets[outer]}"
        raise InputError(shown(index), what, "remove the .idx: it is rebuilt from the .rec")
    left_out = int(starts[0] + (starts[1:] - stops[:-1]).sum()) + max(0, reader.size - int(stops[-1]))
    return [f"{reader.name}: {shown(index.name)} leaves {left_out:,} bytes of records out"] if left_out else []


def _images(name: str, keys: np.ndarray, heads: Heads, numbered: bool) -> tuple[np.ndarray, list[str]]:
    """Which records are images, and warnings.

    Args:
        name: Of the file.
        keys: Ascending.
        heads: Of every record.
        numbered: Whether the keys are those of an index, which alone a header's numbers mean.
    """
    holds = heads.images > 0
    if not numbered or keys[0] != 0 or holds[0] or heads.flags[0] != 2:
        return np.flatnonzero(holds), _left_out(name, "records hold no image", keys, ~holds & (heads.flags != 2))
    first, last = float(heads.labels[0]), float(heads.seconds[0])
    if not 1 <= first <= last < np.inf:
        raise InputError(f"{name}: record 0", f"its header says [{first:g}, {last:g}]", "restore the file")
    doubt = int(np.spacing(np.float32(first))) // 2 if first >= EXACT else 0
    within = holds & (keys < first + doubt)
    lacking = ~holds & (keys >= 1) & (keys < first - doubt)
    warnings = _left_out(name, "records that its header counts hold no image", keys, lacking)
    warnings += _left_out(name, "images lie beyond those that its header counts", keys, holds & ~within)
    classes = len(np.unique(heads.labels[within]))
    if last <= EXACT and last - first != classes:
        warnings.append(f"{name}: its header says {int(last - first):,} identities, and {classes:,} have images")
    return np.flatnonzero(within), warnings


def _left_out(name: str, what: str, keys: np.ndarray, which: np.ndarray) -> list[str]:
    if not which.any():
        return []
    return [f"{name}: {int(which.sum()):,} {what} and are left out, the first is record {keys[which][0]}"]


def _classes(name: str, keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels as int64.

    Raises:
        InputError: One that is no class; names its record.
    """
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(labels) | (labels < 0) | (labels != np.floor(labels)) | (labels >= EXACT)
    for place in np.flatnonzero(bad)[:1].tolist():
        what = f"label {labels[place]:g} is no class ({int(bad.sum()):,} such records)"
        raise InputError(f"{name}: record {keys[place]}", what, f"labels are whole numbers from 0 to {EXACT - 1}")
    return labels.astype(np.int64)
