"""Writing a ``.rec`` that every reader of the format takes, with all that belongs beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekd.data.classes import CLASSES_NAME, classes_text
from facekd.data.images import check_header, shown
from facekd.data.record_heads import EXACT, pack_image
from facekd.data.record_property import PROPERTY_NAME
from facekd.data.recordio import RecordWriter
from facekd.errors import InputError, UsageError
from facekd.files import write_atomic, write_text


@dataclass(frozen=True)
class WrittenRecords:
    """What :func:`write_records` wrote.

    Attributes:
        images: How many.
        digest: sha256 of the ``.rec``.
        warnings: What a user should know.
    """

    images: int
    digest: str
    warnings: list[str]


def write_records(
    path: Path, samples: Iterable[tuple[int, bytes]], names: Sequence[str], insightface_header: bool = False
) -> WrittenRecords:
    """Write a ``.rec`` with all that belongs beside it: ``.idx``, ``property``, ``classes.txt`` and ``.sha256``.

    Records have scalar labels and keys from 0. With ``insightface_header`` images are records 1 to N, followed by the
    header, record 0, and a record for each identity with the range of its images.

    Args:
        path: The ``.rec``; nothing of the set may exist. It appears last, once everything else is there.
        samples: Label and encoded image of each; with ``insightface_header`` identity by identity.
        names: Name of each label.
        insightface_header: Write the layout of the classic face packs.

    Raises:
        UsageError: A file of the set exists.
        InputError: No images, a label without a name, a name that cannot be stored, more than 2**24 - 1 images or
            labels out of order under ``insightface_header``.
        DataError: A sample is no image.
        DeviceError: The disk refuses. In every case nothing is left behind.
    """
    path = Path(path)
    index, digest_file = path.with_suffix(".idx"), path.with_suffix(".sha256")
    stated, classes = path.with_name(PROPERTY_NAME), path.with_name(CLASSES_NAME)
    for taken in (path, index, stated, classes, digest_file):
        if taken.exists():
            raise UsageError(shown(taken), "exists", "choose another folder, or remove it")
    text = classes_text(names)
    packed = _Packed(shown(path), len(names), first_key=int(insightface_header))

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            packed.write(RecordWriter(stream), samples)
        write_text(index, packed.index)
        write_text(stated, packed.stated)
        write_atomic(classes, lambda other: other.write_bytes(text))

    try:
        digest = write_atomic(path, fill)
        write_text(digest_file, f"{digest}  {path.name}\n")
    except BaseException:
        for part in (path, index, stated, classes):
            part.unlink(missing_ok=True)
        raise
    return WrittenRecords(packed.count, digest, packed.warnings)


def identity_records(labels: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """What follows the images of a classic pack: the header, record 0, and a record for each identity.

    Args:
        labels: int64 (N,), ascending; image i is record i + 1.

    Yields:
        Key and payload; the labels of the header are the first key after the images and the one after the last
        identity, those of an identity its first key and the one after its last.

    Raises:
        InputError: More records than float32 can number.

    Example:
        >>> found = {key: payload[24:] for key, payload in identity_records(np.array([0, 0, 1]))}
        >>> {key: np.frombuffer(payload, "<f4").tolist() for key, payload in found.items()}
        {0: [4.0, 6.0], 4: [1.0, 3.0], 5: [3.0, 4.0]}
    """
    starts = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1)) + 1
    after = len(labels) + 1
    if after + len(starts) > EXACT:
        what = f"{len(labels):,} images of {len(starts):,} identities: float32 numbers {EXACT:,} records at most"
        raise InputError("insightface header", what, "write the records without it")
    yield 0, pack_image((float(after), float(after + len(starts))), 0, b"")
    for number, (first, end) in enumerate(zip(starts, [*starts[1:], after], strict=True)):
        yield after + number, pack_image((float(first), float(end)), after + number, b"")


class _Packed:
    """The records of a new file, and what the files beside it will say."""

    def __init__(self, name: str, classes: int, first_key: int) -> None:
        self._name, self._classes, self._first_key = name, classes, first_key
        self._labels: list[int] = []
        self._size, self._odd = (0, 0), 0
        self.index = ""

    @property
    def count(self) -> int:
        return len(self._labels)

    @property
    def stated(self) -> str:
        return f"{self._classes},{self._size[0]},{self._size[1]}\n{self.count}\n"

    @property
    def warnings(self) -> list[str]:
        height, width = self._size
        told = f"{self._odd:,} images are not {width}x{height}, the size in the property file"
        return [f"{self._name}: {told}"] if self._odd else []

    def write(self, writer: RecordWriter, samples: Iterable[tuple[int, bytes]]) -> None:
        """Write every record, in the layout with a header where keys begin at 1."""
        last = -1
        for label, image in samples:
            where, key = f"{self._name}: image {self.count}", self.count + self._first_key
            if not 0 <= label < min(self._classes, EXACT):
                raise InputError(where, f"label {label} has no name", f"there are {self._classes} names")
            size = check_header(image, where)
            self._size = size if not self.count else self._size
            self._odd += size != self._size
            if self._first_key and label < last:
                raise InputError(where, f"label {label} after {last}", "give images identity by identity")
            writer.write(key, pack_image(float(label), key, image))
            self._labels.append(label)
            last = label
        if not self.count:
            raise InputError(self._name, "no images to write")
        for key, payload in identity_records(np.array(self._labels)) if self._first_key else ():
            writer.write(key, payload)
        self.index = "".join(writer.index)
