"""InsightFace verification files (``lfw.bin``, ``cfp_fp.bin``, ...): encoded images and one boolean per pair.

The file is a pickle of ``(images, genuine)`` where pair ``i`` is images ``2i`` and ``2i + 1``. It is read by
``pickle_walk``, which runs nothing, and written as plain bytes and booleans, which every reader of the format takes.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from facekd.data.images import check_header, shown
from facekd.data.pickle_values import Array
from facekd.data.pickle_walk import walk
from facekd.errors import DataError, InputError
from facekd.files import write_atomic

MAX_BIN_BYTES = 4 * 2**30

BIN_HEAD = b"\x80\x04]("
"""How a written ``.bin`` begins: protocol 4, then a list whose items follow."""


def read_bin(path: Path) -> tuple[list[bytes], list[bool]]:
    """Read a verification ``.bin`` without running its pickle.

    Args:
        path: A pickle of protocol 1 to 5; images as bytes, Python-2 str, bytearray, or uint8 arrays (n,) or (n, 1);
            labels as Python or numpy booleans.

    Returns:
        The encoded images, two a pair, and for each pair whether both show one person.

    Raises:
        InputError: Not such a pickle (names byte and opcode), counts that do not fit, or a record that is no image
            or no boolean (names the record).
    """
    images, labels = stored_bin(path)
    checked: set[int] = set()
    for record, data in enumerate(images):
        if id(data) not in checked:
            _check(data, f"{shown(path)}: image {record}")
            checked.add(id(data))
    return images, labels


def stored_bin(path: Path) -> tuple[list[bytes], list[bool]]:
    """:func:`read_bin` without a look at the images: their bytes may be anything.

    Raises:
        InputError: As :func:`read_bin`, but for bytes that are no image.
    """
    name = shown(path)
    content = walk(_content(path), name)
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise InputError(name, "does not hold two lists, the images and the labels")
    stored_images, stored_labels = content
    if not isinstance(stored_images, list | tuple):
        raise InputError(name, f"the images are {_described(stored_images)}, not a list")
    labels = _labels(stored_labels, name)
    if len(stored_images) != 2 * len(labels):
        raise InputError(name, f"{len(stored_images)} images for {len(labels)} labels", "a pair has two images")
    if not labels:
        raise InputError(name, "holds no pairs")
    known: dict[int, bytes] = {}
    images = []
    for record, stored in enumerate(stored_images):
        if id(stored) not in known:
            known[id(stored)] = _bytes(stored, f"{name}: image {record}")
        images.append(known[id(stored)])
    return images, labels


def write_bin(path: Path, encoded_images: Sequence[bytes], genuine: Sequence[bool]) -> None:
    """Write a verification ``.bin``: protocol 4, bytes and Python booleans, complete or not at all.

    An image that comes again is stored once and referred to.

    Args:
        path: Where to write.
        encoded_images: JPEG, PNG, BMP or WebP files; pair i is images 2i and 2i + 1.
        genuine: For each pair, whether both images show one person.

    Raises:
        InputError: The counts do not fit or a record is no image.
        DeviceError: The file cannot be written.
    """
    name = shown(path)
    if len(encoded_images) != 2 * len(genuine):
        raise InputError(name, f"{len(encoded_images)} images for {len(genuine)} labels", "a pair has two images")
    for record, data in enumerate(encoded_images):
        _check(data, f"{name}: image {record}")

    def fill(temporary: Path) -> None:
        known: dict[bytes, int] = {}
        with open(temporary, "wb") as file:
            file.write(BIN_HEAD)
            for data in encoded_images:
                file.write(bin_again(known[data]) if data in known else bin_image(data))
                known.setdefault(data, len(known))
            file.write(bin_tail(genuine))

    write_atomic(path, fill)


def bin_image(data: bytes) -> bytes:
    """The next image of a ``.bin`` that begins with `BIN_HEAD`; the k-th given this way gets the number k, from 0."""
    return b"B" + len(data).to_bytes(4, "little") + data + b"\x94"


def bin_again(number: int) -> bytes:
    """An image of a ``.bin`` that :func:`bin_image` wrote before, by its number."""
    return b"j" + number.to_bytes(4, "little")


def bin_tail(genuine: Sequence[bool]) -> bytes:
    """The end of a ``.bin``: whether each pair shows one person.

    Example:
        >>> walk(BIN_HEAD + bin_image(b"a") + bin_again(0) + bin_tail([True]), "a.bin")
        ([b'a', b'a'], [True])
    """
    return b"e](" + b"".join(b"\x88" if label else b"\x89" for label in genuine) + b"e\x86."


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(shown(path), "not a regular file")
        if status.st_size > MAX_BIN_BYTES:
            raise InputError(shown(path), f"{status.st_size} bytes is too large", f"at most {MAX_BIN_BYTES}")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(shown(path), "no such file") from None
    except OSError as error:
        raise InputError(shown(path), f"cannot be read: {error.strerror}") from None


def _labels(stored: object, name: str) -> list[bool]:
    if isinstance(stored, Array) and stored.dtype == "bool" and len(stored.shape) == 1:
        return [byte != 0 for byte in stored.data or b""]
    if not isinstance(stored, list | tuple):
        raise InputError(name, f"the labels are {_described(stored)}, not a list")
    for pair, label in enumerate(stored):
        if not isinstance(label, bool):
            raise InputError(f"{name}: label {pair}", f"is {_described(label)}, not True or False")
    return list(stored)


def _bytes(stored: object, where: str) -> bytes:
    if isinstance(stored, Array) and stored.dtype == "uint8" and stored.shape[1:] in ((), (1,)):
        stored = stored.data
    if not isinstance(stored, bytes):
        raise InputError(where, f"is {_described(stored)}, not an encoded image", "store the bytes of JPEG files")
    return stored


def _check(data: bytes, where: str) -> None:
    try:
        check_header(_bytes(data, where), where)
    except DataError as error:
        raise InputError(error.where, error.what, error.fix) from None


def _described(value: object) -> str:
    if isinstance(value, Array):
        return f"an array of {value.dtype or 'nothing'} of shape {value.shape}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"the number {value}"
    return f"a {type(value).__name__}"
