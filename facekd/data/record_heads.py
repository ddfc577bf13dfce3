"""The header in front of every image of a ``.rec``: flag, label, id, id2, and labels more than one.

24 bytes, ``<IfQQ``. With flag 0 the label is the float in the header; with flag n it is the n floats behind it, and
the image follows those.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from facekd.data.recordio import MAX_LENGTH, PART, RecordReader
from facekd.errors import InputError

HEADER = struct.Struct("<IfQQ")
EXACT = 2**24
"""Up to here float32, which labels are stored in, leaves no whole number out."""

_HEAD = np.dtype(
    [("magic", "<u4"), ("part", "<u4"), ("flag", "<u4"), ("label", "<f4"), ("ids", "<u8", 2), ("labels", "<f4", 2)]
)


@dataclass(frozen=True)
class Heads:
    """What the headers of N records say.

    Attributes:
        flags: int64 (N,), how many labels lie between header and image.
        labels: float32 (N,), the class: the label, or the first of several.
        seconds: float32 (N,), the second of several labels; means nothing with fewer.
        images: int64 (N,), bytes of the image.
        ends: int64 (N,), where the record ends in the file.
    """

    flags: np.ndarray
    labels: np.ndarray
    seconds: np.ndarray
    images: np.ndarray
    ends: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """int64 (N,), bytes of the whole payload."""
        return HEADER.size + 4 * self.flags + self.images


def pack_image(label: float | tuple[float, float], key: int, image: bytes) -> bytes:
    """A record's payload: header, two labels if two are given, image.

    Example:
        >>> pack_image(7.0, 1, b"abcd").hex(" ", 4)
        '00000000 0000e040 01000000 00000000 00000000 00000000 61626364'
        >>> len(pack_image((4.0, 6.0), 0, b""))
        32
    """
    if isinstance(label, tuple):
        return HEADER.pack(2, 0.0, key, 0) + struct.pack("<2f", *label) + image
    return HEADER.pack(0, label, key, 0) + image


def unpack_image(payload: bytes) -> bytes:
    """The image of a record that was looked at by :func:`read_heads`.

    Example:
        >>> unpack_image(pack_image((4.0, 6.0), 0, b"abc"))
        b'abc'
    """
    return payload[HEADER.size + 4 * HEADER.unpack_from(payload)[0] :]


def read_heads(reader: RecordReader, keys: np.ndarray, offsets: np.ndarray) -> Heads:
    """Look at many records without reading their images.

    Args:
        reader: The file.
        keys: int64 (N,), for messages.
        offsets: int64 (N,).

    Raises:
        InputError: A record that is damaged, too short for its header, or for as many labels as it announces; names
            its key and byte.
    """
    count = len(offsets)
    flags, images, ends = (np.empty(count, np.int64) for _ in range(3))
    labels, seconds = np.empty(count, np.float32), np.empty(count, np.float32)
    for places, found in reader.heads(keys, offsets, _HEAD.itemsize):
        heads = found.view(_HEAD).reshape(-1).copy()
        lengths = (heads["part"] & MAX_LENGTH).astype(np.int64)
        stops = offsets[places] + PART.size + lengths + -lengths % 4
        for row in np.flatnonzero(heads["part"] >> 29).tolist():
            place = int(places[row])
            stops[row] = reader.end(int(offsets[place]), int(keys[place]))
            payload = reader.read(int(offsets[place]))
            lengths[row] = len(payload)
            start = bytes(PART.size) + payload[: _HEAD.itemsize - PART.size]
            heads[row] = np.frombuffer(start.ljust(_HEAD.itemsize, b"\0"), _HEAD)[0]
        flags[places] = heads["flag"]
        labels[places] = np.where(heads["flag"] == 0, heads["label"], heads["labels"][:, 0])
        seconds[places] = heads["labels"][:, 1]
        images[places] = lengths - HEADER.size - 4 * flags[places]
        ends[places] = stops
    for place in np.flatnonzero(images < 0)[:1].tolist():
        where = f"{reader.name}: record {keys[place]}, byte {offsets[place]}"
        payload_bytes = int(images[place] + HEADER.size + 4 * flags[place])
        if payload_bytes < HEADER.size:
            raise InputError(where, f"{payload_bytes} bytes are too few for a header", "this is no image record")
        what = f"announces {flags[place]} labels, and has room for {(payload_bytes - HEADER.size) // 4}"
        raise InputError(where, what, "restore the file")
    return Heads(flags, labels, seconds, images, ends)
