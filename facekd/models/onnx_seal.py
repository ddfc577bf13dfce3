"""The digest an exported ONNX file carries of itself, so that no flipped bit of it goes unnoticed.

The metadata entry :data:`SEAL` holds the SHA-256 of the file's bytes with 64 zeros in its place; the producer's name,
at the other end of the file, says that there must be one. Neither onnx nor torch is needed to check it.
"""

from __future__ import annotations

import hashlib

from facekd.errors import InputError

SEAL = "facekd.seal"
BLANK = "0" * 64
PRODUCER = "facekd"
_BEFORE = SEAL.encode() + b"\x12\x40"
"""The entry's key, then protobuf's field 2 of 64 bytes: its value."""


def sealed(data: bytes) -> bytes:
    """A file's bytes with their digest in the place of :data:`BLANK`.

    Args:
        data: A serialised model whose metadata holds :data:`SEAL` with the value :data:`BLANK`.

    Raises:
        ValueError: There is no such entry, or more than one.

    Example:
        >>> check_seal(sealed(b"weights" + SEAL.encode() + b"\\x12\\x40" + BLANK.encode()), PRODUCER, "a.onnx")
    """
    if data.count(_BEFORE) != 1:
        raise ValueError(f"a file to be sealed holds {SEAL} once")
    start = data.index(_BEFORE) + len(_BEFORE)
    return data[:start] + _digest(data, start).encode() + data[start + len(BLANK) :]


def check_seal(data: bytes, producer: str, where: str) -> None:
    """Refuse a file of facekd's that is not as it was exported; files of others carry no seal.

    Args:
        data: The file.
        producer: Whom it names as its producer.
        where: The file's name, for the message.

    Raises:
        InputError: Its bytes have another digest than it carries, or the seal it should carry is gone.

    Example:
        >>> check_seal(b"weights", "pytorch", "a.onnx")
        >>> check_seal(b"weights", PRODUCER, "a.onnx")
        Traceback (most recent call last):
        facekd.errors.InputError: a.onnx: the seal it was exported with is gone (copy or export it again)
    """
    start = data.find(_BEFORE) + len(_BEFORE)
    if start < len(_BEFORE):
        if producer == PRODUCER:
            raise InputError(where, "the seal it was exported with is gone", "copy or export it again")
        return
    if data[start : start + len(BLANK)] != _digest(data, start).encode():
        fix = f"copy or export it again; if a tool changed it, drop {SEAL} and the producer's name from it"
        raise InputError(where, "is not as it was exported: its SHA-256 differs from the one it carries", fix)


def _digest(data: bytes, start: int) -> str:
    digest = hashlib.sha256(memoryview(data)[:start])
    digest.update(BLANK.encode())
    digest.update(memoryview(data)[start + len(BLANK) :])
    return digest.hexdigest()
