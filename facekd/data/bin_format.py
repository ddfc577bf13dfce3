"""InsightFace verification files (``lfw.bin``, ``cfp_fp.bin``, ...): encoded images and one boolean per pair.

The file is a pickle of ``(images, genuine)`` where pair ``i`` is images ``2i`` and ``2i + 1``. It is read by
``pickle_walk``, which runs nothing, and written as plain bytes and booleans, which every reader of the format takes.
"""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Sequence
from pathlib import Path

from facekd.data.images import check_header, shown
from facekd.data.pickle_values import Array
from facekd.data.pickle_walk import walk
from facekd.errors import DataError, DeviceError, InputError

MAX_BIN_BYTES = 4 * 2**30


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
    checked: dict[int, bytes] = {}
    images = []
    for record, stored in enumerate(stored_images):
        if id(stored) not in checked:
            checked[id(stored)] = _image(stored, f"{name}: image {record}")
        images.append(checked[id(stored)])
    return images, labels


def write_bin(path: Path, encoded_images: Sequence[bytes], genuine: Sequence[bool]) -> None:
    """Write a verification ``.bin``: protocol 4, bytes and Python booleans, complete or not at all.

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
    images = [_image(data, f"{name}: image {record}") for record, data in enumerate(encoded_images)]
    data = pickle.dumps((images, [bool(label) for label in genuine]), protocol=4)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DeviceError(name, f"cannot be written: {error.strerror}") from None


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


def _image(stored: object, where: str) -> bytes:
    if isinstance(stored, Array) and stored.dtype == "uint8" and stored.shape[1:] in ((), (1,)):
        stored = stored.data
    if not isinstance(stored, bytes):
        raise InputError(where, f"is {_described(stored)}, not an encoded image", "store the bytes of JPEG files")
    try:
        check_header(stored, where)
    except DataError as error:
        raise InputError(error.where, error.what, error.fix) from None
    return stored


def _described(value: object) -> str:
    if isinstance(value, Array):
        return f"an array of {value.dtype or 'nothing'} of shape {value.shape}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"the number {value}"
    return f"a {type(value).__name__}"
